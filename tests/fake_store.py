"""Stand-in for sparsecode.store with the same interface, until the store is there."""
from __future__ import annotations
import json
from pathlib import Path
import numpy as np, torch
from safetensors.torch import save_file, load_file
import sparsecode.store as store


class DatasetWriter:
    def __init__(self, path, *, activation_dim, dtype, provenance, shard_bytes=0):
        self.path=Path(path); self.path.mkdir(parents=True, exist_ok=True); self.parts=[]; self.provenance=dict(provenance)
    def __enter__(self): return self
    def __exit__(self,*a): pass
    def append(self, x, tokens): self.parts.append(x.float())
    def finish(self):
        save_file({"x": torch.cat(self.parts)}, self.path/"x.safetensors")
        (self.path/"p.json").write_text(json.dumps(self.provenance))
        return Dataset(self.path)

class Dataset:
    def __init__(self, path):
        self.path=Path(path); self.x=load_file(self.path/"x.safetensors")["x"]
        self.rows,self.activation_dim=self.x.shape
        self.provenance=json.loads((self.path/"p.json").read_text())
        self.fingerprint=f"{float(self.x.double().sum()):.6f}"; self.complete=True
        d=self.x.double()
        self.statistics={"mean":d.mean(0).tolist(),"rms":float(d.square().mean().sqrt()),"variance":float((d-d.mean(0)).square().mean()),"non_finite":0}
    def read(self,a,b): return self.x[a:b].clone()

class ActivationStream:
    def __init__(self, dataset, *, batch_size, seed=0, start_row=0, stop_row=None, position=0, mode="exact", dtype="float32", mean=None, scale=1.0, threads=None, prefetch=4, rank=0, world_size=1):
        self.x=dataset.x[start_row:stop_row]; self.x=(self.x if mean is None else self.x-mean)/scale
        self.B,self.seed,self.position=batch_size,seed,position
        self.perms={}
    def perm(self,e):
        if e not in self.perms: self.perms={e:np.random.default_rng([self.seed,e]).permutation(len(self.x))} | {k:v for k,v in self.perms.items() if k==e-1}
        return self.perms[e]
    def __iter__(self): return self
    def __next__(self):
        R=len(self.x); ps=range(self.position,self.position+self.B)
        idx=[self.perm(p//R)[p%R] for p in ps]; self.position+=self.B
        return self.x[torch.as_tensor(idx)].contiguous()
    def close(self): pass
    def __enter__(self): return self
    def __exit__(self,*a): pass

def install():
    if not hasattr(store, "Dataset"):
        store.Dataset, store.DatasetWriter, store.ActivationStream = Dataset, DatasetWriter, ActivationStream
