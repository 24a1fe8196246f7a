//! Many steps in a row, straight from a stream: no Python between two batches.
use std::time::{Duration, Instant};

use super::run::Engine;
use super::sweep::{Activations, Factors, Mode, Sweep, Totals};
use crate::error::{Error, Result};
use crate::stream::Stream;

/// How often a run looks whether it was interrupted. A step that has begun is always finished.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a run of steps came to.
#[derive(Debug)]
pub struct TrainedSteps {
    /// Steps done.
    pub steps: usize,
    /// Their sums.
    pub totals: Totals,
    /// Why there are no more, where something failed; steps done before stay done.
    pub failure: Option<Error>,
}

impl Engine {
    /// One step for each of `schedule`, on the stream's next batches; `t` is Adam's number of the first.
    /// Fewer once `interrupted` says so. Sums are added to `totals` step after step, so that they do not depend on how a
    /// training is cut into runs.
    pub fn train(
        &mut self,
        sweep: &mut Sweep<'_>,
        stream: &mut Stream,
        t: u64,
        schedule: &[Factors],
        totals: Totals,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> TrainedSteps {
        let mut trained = TrainedSteps { steps: 0, totals, failure: None };
        let mut asked = Instant::now();
        for factors in schedule {
            if asked.elapsed() > PATIENCE {
                if interrupted() {
                    break;
                }
                asked = Instant::now();
            }
            let mode = Mode::Step { t: t + trained.steps as u64, factors: *factors };
            match self.step_on_next(sweep, stream, mode, interrupted) {
                Ok(None) => break,
                Ok(Some(totals)) => trained.totals.add(&totals),
                Err(error) => {
                    trained.failure = Some(error);
                    break;
                }
            }
            trained.steps += 1;
        }
        trained
    }

    fn step_on_next(
        &mut self,
        sweep: &mut Sweep<'_>,
        stream: &mut Stream,
        mode: Mode<'_>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Totals>> {
        if stream.dim() != sweep.d || stream.is_raw() {
            return Err(Error::InvalidArgument(format!(
                "engine: the stream gives rows of {}{}, the sweep needs {} of float32",
                stream.dim(),
                if stream.is_raw() { " as they are stored" } else { "" },
                sweep.d
            )));
        }
        let Some(batch) = stream.next_batch_until(interrupted)? else { return Ok(None) };
        self.run(sweep, Activations { x: batch.values(), rows: batch.rows() }, mode).map(Some)
    }
}
