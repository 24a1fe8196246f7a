//! The order in which rows are read, a pure function (`permutation`, `order`), and the threads that read them in it
//! (`gather`, `prepare`, `workers`, `reader`).

pub mod batch;
pub mod gather;
pub mod order;
pub mod permutation;
#[cfg(target_arch = "x86_64")]
mod permutation512;
pub mod prepare;
pub mod reader;
mod rounds;
mod workers;

pub use batch::Batch;
pub use order::{Mode, Order};
pub use reader::{Settings, Stream};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
