"""The GPU engine: Triton kernels (`fused`, `lists`) or matrix products (`gemm`), as `cost` predicts which is faster.

`check` compares it with the reference on the device that is there, and times it.
"""

from sparsecode.sweep.engines.gpu.engine import GpuEngine, architecture, available, supports

__all__ = ["GpuEngine", "architecture", "available", "supports"]
