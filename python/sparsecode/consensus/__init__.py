"""Consensus: a dictionary of the features that recur in several, and what is known of each (docs/consensus.md)."""

from sparsecode.consensus.build import averaged
from sparsecode.consensus.clusters import Clusters, cluster
from sparsecode.consensus.making import Made, make
from sparsecode.consensus.records import ConsensusSettings
from sparsecode.consensus.voters import Voter, voter_of

__all__ = ["Clusters", "ConsensusSettings", "Made", "Voter", "averaged", "cluster", "make", "voter_of"]
