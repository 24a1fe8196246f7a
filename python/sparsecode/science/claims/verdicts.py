"""When a claim counts as reproduced: every threshold of the report, and why it stands where it does.

Each rule takes numbers that were measured elsewhere and gives a verdict: it can come out either way, and where the
data cannot decide it says "not tested" and why. Rules look at the end of an interval that is worse for the claim
(95 %, see `statistics.bootstrap`), so that a result within its own noise is not called reproduced.

"Partly" is said where what was seen is there, and what it was taken for is not: two modes of which one is of features
that were never trained (claim 2), features sparser than random directions only as far as some neurons vary more than
others (claim 6), a truth that is recovered and no sign of where (claim 7), or that sign without the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sparsecode.science.statistics.bootstrap import Interval

REPRODUCED, PARTLY, NOT_REPRODUCED, NOT_TESTED = "reproduced", "partly", "not reproduced", "not tested"
WITHIN_NOISE = "Within noise: a run with another seed may come out otherwise."

# Claim 2. Each distribution at 1 %; that most of several pass by chance is then out of the question.
DIP_LEVEL = 0.01
# Ashman, Bird and Zepf (1994): two normal distributions have separate peaks where D is above 2.
ASHMAN = 2.0
# A second mode with under 5 % of the features is a tail.
LEAST_WEIGHT = 0.05
# Features that never fired stay near their random start, whose nearest cosines are those of chance: they make a mode of
# their own. The seed counted them; only features that were trained can be of two kinds. The same holds of features that
# fire now and then and hardly moved: of an atom whose cosine with its start is above the root of 1/2, more than half of
# the squared length is still that start.
HARDLY_MOVED = 0.5**0.5
# Below this many live features neither the dip nor a fit of five parameters says anything.
LEAST_FEATURES = 50
# Claims of what is "usual", "most" or "highly": more than half.
MOST = 0.5
# Claim 3. A feature whose strongest contexts have nothing in common is not interpretable; one where half of them
# share the very token at the peak, or the one before it, plainly is. A feature for a class of tokens (all brackets)
# fails this: the measure errs against the claim.
CONSISTENT = 0.5
LEAST_DIRECTIONS = 5
# Claim 4. Slope of a line of equal L0: 0 means one L1 for all sizes, 1 means L1 in proportion to size (the diagonal).
# The middle tells which of the two a slope is nearer to.
HALF_DIAGONAL = 0.5
# Claim 5. Of live features: those that died are as similar to a larger dictionary as chance has it, so that a curve of
# all features falls with their number, whatever the others do.
# A rise of a twentieth of the whole scale of cosines per doubling can be seen by eye; a plateau keeps within
# a quarter of the rise before it.
RISE = 0.05
PLATEAU = 0.25
LEAST_SIZES = 4
# Claim 6. Not sparse at all: spread over neurons like a random direction, which one in a hundred is not. A direction of
# the data cannot use neurons that hardly vary, and in a default run neurons' standard deviations differ by a hundred
# times: directions that know nothing of neurons but these are sparser than uniform ones. A direction as concentrated as
# these is sparse for that reason alone.
RANDOM_PERCENTILE = 1.0
# Claim 7. The cosine above which a feature counts as found again everywhere else; a dictionary that learned nothing
# reaches 0.2 in the default space.
RECOVERED = 0.9
# What choosing L1 without the truth may lose of MMCS with it: half the distance from RECOVERED to perfect.
REGRET = 0.05
# Sizes at which L1 hardly matters (a smaller range of MMCS) could not fail, and are left out.
CONTRAST = 0.1


@dataclass(frozen=True)
class Verdict:
    """A verdict, the sentence that explains it, and the number it rests on in few words.

    `within_noise`: the interval of that number reaches beyond the bound of the rule, so that a run with another seed
    may come out otherwise.
    """

    verdict: str
    reason: str
    number: str = ""

    within_noise: bool = False

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def doubted(self, doubtful: bool) -> Verdict:
        """This verdict, marked as within noise if `doubtful`."""
        if not doubtful:
            return self
        return replace(self, reason=f"{self.reason} {WITHIN_NOISE}", within_noise=True)


def not_tested(reason: str) -> Verdict:
    """What could not be judged, and why."""
    return Verdict(NOT_TESTED, reason, "–")


def more_features_than_dimensions(
    counts: Mapping[str, Interval], by_chance: float, features: int, dimensions: int
) -> Verdict:
    """Claim 1, of one dictionary.

    Reproduced where in every kind of larger dictionary it was compared with (same seed, another seed), the number of
    its features that come back, as pairs that are each other's nearest, is above the dimensions of the space, and ten
    times what random directions reach.

    Args:
        counts: by what the other dictionary is; empty where there is none.
        by_chance: features that would be found again if atoms were random directions.
        features: size of the dictionary.
        dimensions: of the space.
    """
    if not counts:
        return not_tested("No dictionary was compared with a larger one.")
    if features <= dimensions:
        return not_tested(
            f"The largest dictionary that has a larger relative holds {features} features, not more than the "
            f"{dimensions} dimensions; train larger ones."
        )
    kind, worst = min(counts.items(), key=lambda item: item[1].low)
    number = f"{worst.value:.0f} of {features} features ({worst.low:.0f} to {worst.high:.0f}), {dimensions} dimensions"
    bar = max(float(dimensions), 10 * by_chance)
    if worst.low > bar:
        return Verdict(REPRODUCED, f"Also in the {kind} the count is above the width of the space.", number)
    if worst.value > bar:
        return Verdict(NOT_REPRODUCED, f"In the {kind} the count is not clearly above the width.", number).doubted(True)
    below = Verdict(NOT_REPRODUCED, f"In the {kind} the count is not above the width of the space.", number)
    return below.doubted(worst.holds(bar))


def bimodal(p: float, ashman: float, weights: Sequence[float], features: int) -> bool | None:
    """Whether one distribution of MCS has two modes; None where too few features are alive to tell."""
    if features < LEAST_FEATURES:
        return None
    return p < DIP_LEVEL and ashman > ASHMAN and min(weights) >= LEAST_WEIGHT


def two_modes(
    live: Sequence[bool | None], everything: Sequence[bool | None] = (), low_start: Sequence[float] = ()
) -> Verdict:
    """Claim 2, from `bimodal` of every dictionary with more features than dimensions and a larger relative.

    Args:
        live: of its live features.
        everything: of all its features, dead ones too, as the seed counted.
        low_start: for those whose live features have two modes, the mean cosine of the lower one's with their start.
    """
    judged = [one for one in live if one is not None]
    if not judged:
        return not_tested(
            "No dictionary with more features than dimensions and a larger relative has "
            f"{LEAST_FEATURES} live features."
        )
    count, with_dead = sum(judged), [one for one in everything if one is not None]
    number = f"bimodal in {count} of {len(judged)} dictionaries"
    number += f" ({sum(with_dead)} with dead features)" if with_dead else ""
    # One dictionary more or less would turn it.
    doubtful = abs(count - MOST * len(judged)) <= 1 and len(judged) > 1
    if count > MOST * len(judged):
        if low_start and sum(low_start) / len(low_start) > HARDLY_MOVED:
            unmoved = "Live features have two modes, but the lower one is of features that hardly moved."
            return Verdict(PARTLY, unmoved, number).doubted(doubtful)
        found = Verdict(REPRODUCED, "Live features alone have two modes in most dictionaries.", number)
        return found.doubted(doubtful)
    if with_dead and sum(with_dead) > MOST * len(with_dead):
        dead = (
            "All features together, as the seed counted, have two modes; live features mostly have one: the lower mode "
            "is of dead features."
        )
        return Verdict(PARTLY, dead, number).doubted(doubtful)
    one = Verdict(NOT_REPRODUCED, "In most dictionaries live features have no two separate modes.", number)
    return one.doubted(doubtful)


def interpretable(consistency: Sequence[float], over_random: Interval | None) -> Verdict:
    """Claim 3, from how alike each feature's strongest contexts are, and how much more so than those of chance."""
    if len(consistency) < LEAST_DIRECTIONS or over_random is None:
        return not_tested(f"Fewer than {LEAST_DIRECTIONS} distinct features are found in every size.")
    share = sum(value >= CONSISTENT for value in consistency) / len(consistency)
    number = f"{share:.0%} of {len(consistency)} features consistent, {over_random.text('+.2f')} over random"
    # Of a share: the normal approximation to a binomial count.
    doubtful = abs(share - MOST) <= 1.96 * (share * (1 - share) / len(consistency)) ** 0.5
    if over_random.low <= 0:
        alike = Verdict(NOT_REPRODUCED, "Their contexts are not more alike than those of random directions.", number)
        return alike.doubted(over_random.holds(0) and (share > MOST or doubtful))
    if share > MOST:
        shared = Verdict(REPRODUCED, "Most features' strongest contexts share a token; read them below.", number)
        return shared.doubted(doubtful)
    return Verdict(NOT_REPRODUCED, "The strongest contexts of most features share no token.", number).doubted(doubtful)


def diagonal_is_an_artefact(plain: Interval | None, divided: Interval | None) -> Verdict:
    """Claim 4, from the slopes d log L1 / d log size of lines of equal L0 under both normalisations."""
    if plain is None or divided is None:
        return not_tested("The sweep over sizes and L1 under both normalisations has no two sizes with a common L0.")
    number = f"slope {plain.text()} plain, {divided.text()} divided"
    if divided.low <= HALF_DIAGONAL:
        flat = Verdict(NOT_REPRODUCED, "With L1 divided by the size the lines are not diagonal to begin with.", number)
        return flat.doubted(divided.holds(HALF_DIAGONAL))
    if plain.high < HALF_DIAGONAL and plain.low > -HALF_DIAGONAL:
        return Verdict(
            REPRODUCED, "Lines of equal L0 are diagonal with the division and nearer to flat without.", number
        )
    near = Verdict(NOT_REPRODUCED, "Without the division the lines of equal L0 are not clearly nearer to flat.", number)
    return near.doubted(plain.holds(HALF_DIAGONAL) or plain.holds(-HALF_DIAGONAL))


def rises_then_plateaus(before: Interval | None, after: Interval | None, sizes: int, first: float) -> Verdict:
    """Claim 5, from slopes of live features' MMCS per doubling of the size, before and after the change-point.

    Args:
        before: the first slope.
        after: the second one.
        sizes: points of the curve.
        first: MMCS at the smallest size.
    """
    if before is None or after is None or sizes < LEAST_SIZES:
        return not_tested(f"The curve has {sizes} sizes with a larger relative; a change-point needs {LEAST_SIZES}.")
    number = f"{before.text('+.3f')} per doubling, then {after.text('+.3f')}"
    if before.low < RISE:
        why = f"MMCS does not rise at first: it is {first:.2f} at the smallest size already."
        rise = Verdict(NOT_REPRODUCED, why if before.value < RISE else "The first rise is not clear.", number)
        return rise.doubted(before.holds(RISE))
    bound = PLATEAU * before.value
    if after.low < -bound:
        return Verdict(NOT_REPRODUCED, "MMCS rises, then falls.", number).doubted(after.holds(-bound))
    if after.high > bound:
        return Verdict(NOT_REPRODUCED, "MMCS rises and goes on rising.", number).doubted(after.holds(bound))
    return Verdict(REPRODUCED, "MMCS rises, then stays.", number)


def not_sparse_in_neurons(
    as_random: Interval | None, as_weighted: Interval | None, ratio: Mapping[str, float]
) -> Verdict:
    """Claim 6, from the share of features as spread over neurons as 99 % of random directions are.

    Args:
        as_random: that share, of the features that come back.
        as_weighted: the same against random directions whose components have the neurons' standard deviations; None
            where the activations are not there.
        ratio: medians of the participation ratio (how many neurons a direction effectively uses): features, random,
            weighted.
    """
    if as_random is None:
        return not_tested(f"Fewer than {LEAST_DIRECTIONS} live features are found again.")
    weighted = f" ({ratio['weighted']:.1f} weighted by the neurons' spread)" if "weighted" in ratio else ""
    number = f"{ratio['features']:.1f} neurons effectively, random {ratio['random']:.1f}{weighted}, neuron 1"
    if as_random.low > MOST:
        return Verdict(REPRODUCED, "Most features are as spread over neurons as random directions.", number)
    if ratio["features"] >= ratio["random"]:
        most = Verdict(NOT_REPRODUCED, "Not clearly most features are as spread as random directions.", number)
        return most.doubted(True)
    few = f"Only {as_random.value:.0%} of the features are as spread over neurons as random directions"
    if as_weighted is not None and as_weighted.low > MOST:
        why = (
            f"{few}; but {as_weighted.value:.0%} are as spread as random directions that use each neuron as much as it "
            "varies."
        )
        return Verdict(PARTLY, why, number).doubted(as_random.holds(MOST))
    between = Verdict(NOT_REPRODUCED, f"{few}: most lie between a random direction and a neuron.", number)
    return between.doubted(as_random.holds(MOST) or (as_weighted is not None and as_weighted.holds(MOST)))


def truth_and_its_sign(best: Interval | None, regrets: Sequence[float]) -> Verdict:
    """Claim 7, from toy models: whether known features are recovered, and whether it shows without knowing them.

    Recovered: the best dictionary's MMCS with the truth is at least RECOVERED, and so is the lower end of its interval
    over true features. Sign: choosing the L1 whose dictionary is most like the next larger one loses at most REGRET of
    MMCS with the truth, at every size. Both: reproduced. One: partly.

    Args:
        best: MMCS with the truth of the best dictionary.
        regrets: per size that can hold the truth and at which L1 matters, what that choice loses; where there is none,
            the sign counts as not held.
    """
    if best is None:
        return not_tested("No dictionary was measured against the truth.")
    recovered, sign = best.low >= RECOVERED, bool(regrets) and max(regrets) <= REGRET
    cost = (
        f"L1 chosen by MMCS with larger loses at most {max(regrets):.3f} of it"
        if regrets
        else "no size at which a choice of L1 could be tested"
    )
    first = "The truth is recovered" if recovered else "The truth is not recovered"
    if not regrets:
        second = "whether similarity to larger dictionaries shows it could not be tested"
    else:
        second = f"similarity to larger dictionaries {'shows' if sign else 'does not show'} at which L1"
    joined = "and" if recovered == sign else "but"
    found = Verdict(
        (NOT_REPRODUCED, PARTLY, REPRODUCED)[recovered + sign],
        f"{first}, {joined} {second}.",
        f"MMCS with the truth up to {best.text('.3f')}; {cost}",
    )
    return found.doubted(best.holds(RECOVERED))
