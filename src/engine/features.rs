//! Phase two of a step, over features: a feature's gradients from its codes, in registers, then projection, Adam and
//! renormalisation while its rows are at hand. A feature's rows are always added in row order, so that the bits depend
//! on neither threads nor blocks.
use super::adam::Adam;
use super::batch::BatchRows;
use super::codes::Codes;
use super::dense_features;
use super::gradients::Gradients;
use super::idle::{Look, catch_up};
use super::parameters::Features;
use crate::vector::dot::{add_scaled, dot, scale};
use crate::vector::simd::{Kernel, LANES, Simd};

/// What happens to a feature once its gradients are known.
#[derive(Debug, Clone, Copy)]
pub struct Update {
    /// Constants of the step.
    pub adam: Adam,
    /// Whether the gradient along the atom is removed.
    pub project: bool,
    /// How features that have come to rest are found; None: nobody looks.
    pub look: Option<Look>,
}

/// What features get of a pre-activation loss on all rows; those above their thresholds have taken theirs back.
#[derive(Debug, Clone, Copy)]
pub struct Silent<'a> {
    /// Of a row, negative.
    pub by_row: f64,
    /// Rows.
    pub rows: f64,
    /// [stride]: the sum of all rows.
    pub sum: &'a [f32],
}

/// Phase two over some features.
pub struct FeaturesKernel<'a, 'b> {
    /// The rows.
    pub rows: BatchRows<'a>,
    /// Blocks of codes in row order.
    pub blocks: &'a [Codes],
    /// Row of the batch at which they begin.
    pub first_row: usize,
    /// Rows of a block, but for the last.
    pub block_rows: usize,
    /// First feature.
    pub first: usize,
    /// Parameters.
    pub features: Features<'b>,
    /// Codes of dead features, which are added to those of the blocks, and the rows that these point to.
    pub aux: Option<(BatchRows<'a>, &'a [Codes])>,
    /// What all rows give.
    pub silent: Option<Silent<'a>>,
    /// [features]: rows on which each was above zero are added.
    pub fired: Option<&'b mut [i64]>,
    /// [features]: 0 where one was.
    pub since: Option<&'b mut [i64]>,
    /// Sums of the gradients, continued.
    pub gradients: Gradients<'b>,
    /// [stride], once the gradients are complete: minus the sum over the features of bias gradient times encoder row is
    /// added, which is what reaches the pre-bias through the encoder.
    pub through_encoder: Option<&'b mut [f32]>,
    /// Whether the gradients are complete with these blocks.
    pub complete: bool,
    /// What to do once the gradients are complete; they are used up.
    pub update: Option<Update>,
    /// [features]: those that rest, see [`super::idle`].
    pub lag: Option<&'b mut [i32]>,
}

impl Kernel for FeaturesKernel<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self {
            rows,
            blocks,
            first_row,
            block_rows,
            first,
            mut features,
            aux,
            silent,
            mut fired,
            mut since,
            gradients,
            mut through_encoder,
            complete,
            update,
            mut lag,
        } = self;
        let d = rows.d;
        // Blocks before the last dense one are added one by one, and all features of a block at once.
        let dense = blocks.iter().rposition(|block| block.is_dense).map_or(0, |last| last + 1);
        let mut gradients = gradients;
        for (index, block) in blocks[..dense].chunks(1).enumerate() {
            if block[0].is_dense {
                (0..gradients.bias.len()).for_each(|j| gradients.begin(j, rows.stride));
                let first_row = first_row + index * block_rows;
                dense_features::accumulate(
                    s,
                    &rows,
                    &block[0].dense,
                    first_row,
                    first,
                    &mut gradients,
                    fired.as_deref_mut(),
                );
            } else {
                for j in 0..gradients.bias.len() {
                    let (fired, since) = (fired.as_deref_mut(), since.as_deref_mut());
                    add_lists(s, &rows, block, first + j, &mut gradients, j, fired, since);
                }
            }
        }
        for j in 0..gradients.bias.len() {
            let rests = |j: usize| lag.as_deref().is_some_and(|lag| lag.get(j).is_some_and(|lag| *lag > 0));
            if update.is_some() && !rests(j + 1) {
                features.prefetch(s, j + 1, d);
            }
            let (fired, since) = (fired.as_deref_mut(), since.as_deref_mut());
            add_lists(s, &rows, &blocks[dense..], first + j, &mut gradients, j, fired, since);
            if let Some((rows, blocks)) = &aux {
                add_lists(s, rows, blocks, first + j, &mut gradients, j, None, None);
            }
            if !complete {
                continue;
            }
            // A loss on all rows lets nobody rest.
            let idle = gradients.codes[j] == 0 && silent.is_none();
            if update.is_some() && rests(j) {
                let lag = &mut lag.as_deref_mut().unwrap_or_default()[j];
                if idle {
                    *lag += 1;
                    continue;
                }
                catch_up(s, &mut features, j, d, *lag - 1);
                *lag = 0;
            }
            gradients.begin(j, rows.stride);
            if let Some(Silent { by_row, rows: count, sum }) = silent {
                add_scaled(s, gradients.row(j, rows.stride).1, -by_row as f32, sum);
                gradients.bias[j] -= by_row * count;
                gradients.own[j] += by_row * count;
            }
            let bias = gradients.bias[j];
            let own = gradients.own.len() / gradients.bias.len();
            let mut vectors = [0.0; 3];
            vectors[..own].copy_from_slice(&gradients.own[j * own..(j + 1) * own]);
            let (to_decoder, to_encoder) = gradients.row(j, rows.stride);
            if let Some(out) = through_encoder.as_deref_mut() {
                let encoder = features.encoder.as_ref().unwrap_or(&features.decoder);
                add_scaled(s, &mut out[..d], -bias as f32, &encoder.value[j * d..(j + 1) * d]);
            }
            if let Some(update) = update {
                // Gated has the bias's own gradient.
                let bias = if own == 3 { vectors[2] } else { bias };
                apply(s, update, &mut features, j, d, to_decoder, to_encoder, bias as f32);
                apply_own(update.adam, &mut features, j, vectors, own == 1);
                if let (true, Some(lag), Some(look)) = (idle, lag.as_deref_mut(), update.look)
                    && look.at(first + j)
                    && look.rests(s, &mut features, j, d)
                {
                    lag[j] = 1;
                }
            }
        }
    }
}

/// Adds the codes of feature j (of the blocks' feature `of`), block after block.
#[inline(always)]
fn add_lists<S: Simd>(
    s: S,
    rows: &BatchRows<'_>,
    blocks: &[Codes],
    of: usize,
    gradients: &mut Gradients<'_>,
    j: usize,
    fired: Option<&mut [i64]>,
    since: Option<&mut [i64]>,
) {
    let (mut bias, mut active, mut count) = (gradients.bias[j], 0, 0);
    for block in blocks {
        let codes = block.feature(of);
        for (z, g) in codes.z.iter().zip(codes.g) {
            bias += f64::from(*g);
            active += i64::from(*z > 0.0);
            count += 1;
        }
    }
    if count == 0 {
        return;
    }
    gradients.bias[j] = bias;
    if let Some(fired) = fired {
        fired[j] += active;
    }
    if let Some(since) = since
        && active > 0
    {
        since[j] = 0;
    }
    let own = gradients.own.len() / gradients.bias.len();
    for (list, sum) in gradients.own[j * own..(j + 1) * own].iter_mut().enumerate() {
        for block in blocks.iter().filter(|block| !block.own[list].is_empty()) {
            block.own(list, of).iter().for_each(|value| *sum += f64::from(*value));
        }
    }
    gradients.begin(j, rows.stride);
    gradients.codes[j] += count;
    let (to_decoder, to_encoder) = gradients.row(j, rows.stride);
    accumulate(s, rows, blocks, of, to_decoder, to_encoder);
}

/// Updates feature j by its gradients.
#[inline(always)]
fn apply<S: Simd>(
    s: S,
    update: Update,
    features: &mut Features<'_>,
    j: usize,
    d: usize,
    to_decoder: &mut [f32],
    to_encoder: &[f32],
    to_bias: f32,
) {
    let adam = update.adam;
    let decoder = features.decoder.row(j, d);
    if let Some(encoder) = &mut features.encoder {
        let encoder = encoder.row(j, d);
        adam.row(s, encoder.value, encoder.m, encoder.v, to_encoder);
    } else {
        add_scaled(s, to_decoder, 1.0, to_encoder);
    }
    if update.project {
        let along = dot(s, to_decoder, decoder.value);
        add_scaled(s, &mut to_decoder[..d], -along, decoder.value);
    }
    let squares = adam.row(s, decoder.value, decoder.m, decoder.v, to_decoder);
    scale(s, decoder.value, 1.0 / s.sum(squares).sqrt());
    let bias = features.bias.row(j, 1);
    adam.one(&mut bias.value[0], &mut bias.m[0], &mut bias.v[0], to_bias);
}

/// Updates what feature j has beside rows and bias; thresholds stay at 0 or above.
#[inline(always)]
fn apply_own(adam: Adam, features: &mut Features<'_>, j: usize, gradients: [f64; 3], thresholds: bool) {
    for (vector, gradient) in features.own.iter_mut().zip(gradients) {
        if let Some(vector) = vector {
            let at = vector.part(j..j + 1);
            adam.one(&mut at.value[0], &mut at.m[0], &mut at.v[0], gradient as f32);
            if thresholds && at.value[0] < 0.0 {
                at.value[0] = 0.0;
            }
        }
    }
}

#[inline(always)]
fn accumulate<S: Simd>(
    s: S,
    rows: &BatchRows<'_>,
    blocks: &[Codes],
    of: usize,
    decoder: &mut [f32],
    encoder: &mut [f32],
) {
    let vectors = rows.stride / LANES;
    let mut v = 0;
    macro_rules! columns {
        ($count:literal) => {
            while vectors - v >= $count {
                accumulate_columns::<S, $count>(s, rows, blocks, of, decoder, encoder, v);
                v += $count;
            }
        };
    }
    if S::ACCUMULATORS >= 16 {
        columns!(8);
        columns!(4);
    }
    columns!(2);
    columns!(1);
}

#[inline(always)]
fn accumulate_columns<S: Simd, const C: usize>(
    s: S,
    rows: &BatchRows<'_>,
    blocks: &[Codes],
    of: usize,
    decoder: &mut [f32],
    encoder: &mut [f32],
    v: usize,
) {
    let columns = v * LANES..(v + C) * LANES;
    let (step, first) = rows.residual_of(of);
    let decoder = decoder[columns.clone()].as_chunks_mut::<LANES>().0;
    let encoder = encoder[columns.clone()].as_chunks_mut::<LANES>().0;
    let mut to_decoder: [S::V; C] = std::array::from_fn(|i| s.load(&decoder[i]));
    let mut to_encoder: [S::V; C] = std::array::from_fn(|i| s.load(&encoder[i]));
    // Rows are not asked for ahead: the processor's own look-ahead reaches over several codes (measured).
    for block in blocks {
        let codes = block.feature(of);
        for ((row, z), g) in codes.rows.iter().zip(codes.z).zip(codes.g) {
            let from = *row as usize * step + first + columns.start;
            let residual = rows.residual[from..from + C * LANES].as_chunks::<LANES>().0;
            let at = *row as usize * rows.stride + columns.start;
            let x = rows.x[at..at + C * LANES].as_chunks::<LANES>().0;
            let (z, g) = (s.splat(*z), s.splat(*g));
            for i in 0..C {
                to_decoder[i] = s.fma(z, s.load(&residual[i]), to_decoder[i]);
                to_encoder[i] = s.fma(g, s.load(&x[i]), to_encoder[i]);
            }
        }
    }
    for i in 0..C {
        s.store(to_decoder[i], &mut decoder[i]);
        s.store(to_encoder[i], &mut encoder[i]);
    }
}
