//! Gradients of features while their codes are added: sums that outlive a phase, or a thread's own.
use crate::vector::aligned::Aligned;

/// Gradients of some features: sums over the codes so far.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// [features][2][stride]: of the decoder, and of the encoder; anything before a feature has codes.
    pub rows: &'a mut [f32],
    /// [features], of the bias.
    pub bias: &'a mut [f64],
    /// [features]: how many codes.
    pub codes: &'a mut [u32],
    /// [features][own]: of the vectors of the kind.
    pub own: &'a mut [f64],
}

impl Gradients<'_> {
    /// Of feature j: of the decoder, and of the encoder.
    #[inline(always)]
    pub fn row(&mut self, j: usize, stride: usize) -> (&mut [f32], &mut [f32]) {
        self.rows[2 * j * stride..2 * (j + 1) * stride].split_at_mut(stride)
    }

    /// Zeros for feature j if it has no codes yet.
    #[inline(always)]
    pub fn begin(&mut self, j: usize, stride: usize) {
        if self.codes[j] == 0 {
            self.rows[2 * j * stride..2 * (j + 1) * stride].fill(0.0);
        }
    }
}

/// Room for the gradients of some features.
#[derive(Debug, Default)]
pub struct Sums {
    rows: Aligned,
    bias: Vec<f64>,
    codes: Vec<u32>,
    own: Vec<f64>,
}

impl Sums {
    /// Of `count` features without codes, with `own` numbers each beside rows and bias.
    pub fn of(&mut self, count: usize, stride: usize, own: usize) -> Gradients<'_> {
        self.rows.resize(2 * count * stride);
        self.bias.clear();
        self.bias.resize(count, 0.0);
        self.codes.clear();
        self.codes.resize(count, 0);
        self.own.clear();
        self.own.resize(count * own, 0.0);
        self.so_far()
    }

    /// The sums so far, of consecutive parts of `size` features.
    pub fn chunks(&mut self, size: usize, stride: usize) -> impl Iterator<Item = Gradients<'_>> {
        let own = self.own.len() / self.bias.len().max(1);
        let sums = self.bias.chunks_mut(size).zip(self.codes.chunks_mut(size));
        let mut own = self.own.chunks_mut((own * size).max(1));
        self.rows.chunks_mut(2 * size * stride).zip(sums).map(move |(rows, (bias, codes))| Gradients {
            rows,
            bias,
            codes,
            own: own.next().unwrap_or_default(),
        })
    }

    /// The sums so far.
    pub fn so_far(&mut self) -> Gradients<'_> {
        Gradients { rows: &mut self.rows, bias: &mut self.bias, codes: &mut self.codes, own: &mut self.own }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.bytes()
            + (self.bias.capacity() + self.own.capacity()) * size_of::<f64>()
            + self.codes.capacity() * size_of::<u32>()
    }
}
