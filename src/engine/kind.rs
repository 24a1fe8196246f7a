//! What distinguishes one kind of dictionary from another: which pre-activations are codes, what beside the error counts
//! in the loss, which features share a residual. `docs/engine.md` has the seams where a step asks for it.

/// Which pre-activations y are codes z.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// z = y where y > 0.
    Relu,
    /// z = y where y is above the feature's threshold theta, which learns from a window around it.
    Jump {
        /// The window's width.
        window: f32,
        /// Whether the estimator moves y as well.
        to_input: bool,
    },
    /// z = relu(e^rho (y - bias) + magnitude) where y > 0, and a second reconstruction from relu(y).
    Gated,
    /// The k largest of each row that are positive.
    TopK {
        /// k.
        k: usize,
    },
    /// The k B largest of the batch that are positive; in an evaluation those above the running threshold.
    BatchTopK {
        /// k.
        k: f64,
    },
}

/// What the loss has beside errors, per row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Penalty {
    /// Nothing.
    None,
    /// The sum of the codes; Gated: of relu(y). Its strength is [`super::Sweep::l1`].
    L1,
    /// The sum of z^p. Strength and p change during the training: [`super::Kinds::annealing`].
    Power,
    /// The number of codes.
    L0,
    /// (mean number of codes / l0 - 1)^2.
    Target {
        /// l0.
        l0: f64,
    },
    /// The mean of 2 / l0 (number of codes - l0)^2.
    Rows {
        /// l0.
        l0: f64,
    },
    /// The sum of tanh(steepness z).
    Tanh {
        /// The steepness.
        steepness: f64,
    },
}

/// The loss of dead features.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Aux {
    /// Its weight.
    pub alpha: f64,
    /// Codes per row.
    pub k: usize,
    /// Rows without a code after which a feature is dead.
    pub dead_after: i64,
}

/// The kind of one dictionary.
#[derive(Debug, Clone, PartialEq)]
pub struct Kind {
    /// Codes.
    pub activation: Activation,
    /// Penalty.
    pub penalty: Penalty,
    /// What multiplies a penalty that is neither L1 nor a power.
    pub strength: f64,
    /// What multiplies the mean over rows of sum relu(theta - y).
    pub pre_activation: f64,
    /// Ends of nested groups, ascending to the number of features; none: one group of all.
    pub groups: Vec<usize>,
    /// The loss of dead features.
    pub aux: Option<Aux>,
}

/// `ReLU` + L1.
pub static RELU: Kind = Kind {
    activation: Activation::Relu,
    penalty: Penalty::L1,
    strength: 0.0,
    pre_activation: 0.0,
    groups: Vec::new(),
    aux: None,
};

impl Kind {
    /// Vectors of the features that it has beside biases: theta; magnitude and gain.
    #[must_use]
    pub fn vectors(&self) -> usize {
        match self.activation {
            Activation::Jump { .. } => 1,
            Activation::Gated => 2,
            _ => 0,
        }
    }

    /// Derivatives of each code whose sums are gradients of vectors: of [`Self::vectors`], and Gated's of the bias.
    pub(super) fn own(&self) -> usize {
        match self.activation {
            Activation::Jump { .. } => 1,
            Activation::Gated => 3,
            _ => 0,
        }
    }

    /// Nested groups; at least one.
    pub(super) fn group_count(&self) -> usize {
        self.groups.len().max(1)
    }

    /// Whether its codes may be matrices from end to end.
    pub(super) fn has_matrices(&self) -> bool {
        self.activation == Activation::Relu && self.penalty == Penalty::L1 && self.has_one_residual()
    }

    /// Whether all features share one residual, and nothing else needs another.
    pub(super) fn has_one_residual(&self) -> bool {
        self.groups.len() <= 1 && self.aux.is_none()
    }

    /// Whether derivatives need to know the codes of all rows.
    pub(super) fn needs_all_codes(&self) -> bool {
        matches!(self.activation, Activation::BatchTopK { .. }) || matches!(self.penalty, Penalty::Target { .. })
    }

    /// Whether `n` features may have it.
    pub(super) fn fits(&self, n: usize) -> bool {
        let ascend = self.groups.is_sorted_by(|a, b| a < b) && self.groups.first() != Some(&0);
        let k = match self.activation {
            Activation::TopK { k } => k > 0,
            Activation::BatchTopK { k } => k > 0.0 && k.is_finite(),
            Activation::Jump { window, .. } => window > 0.0,
            _ => true,
        };
        let aux = self.aux.is_none_or(|aux| aux.k > 0);
        k && aux && ascend && self.groups.last().is_none_or(|last| *last == n)
    }
}

/// What the screen takes for a bias where codes begin at `from` instead of 0, which numbers of up to `size` were rounded to:
/// rounded such that nothing is lost.
///
/// The screen drops what is at most 0 with this bias. The sum of product and bias is then below `from` by more than a
/// millionth of all these numbers, and no rounding to float32 reaches `from`.
pub(super) fn screen_bias(bias: f32, from: f32, size: f32) -> f32 {
    const SLACK: f32 = 1.0 / (1 << 20) as f32;
    (bias - from) + SLACK * (bias.abs() + size)
}
