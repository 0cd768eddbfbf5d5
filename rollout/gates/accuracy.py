"""Is the canary wrong more often than stable, as far as people have labelled their answers?

Two kinds of labels. Of live requests a sample with known probabilities (the measure budget), by stratum of the request:
weighted_labels to roll back, centred_labels to promote. Of mirrored requests, which both versions answered, the
disagreements: where both agree both are right or both wrong, so few labels decide (paired).

A stratum, and the pairs of a minute, are absorbed once, `mature_seconds` after their requests; a later label does not
count here. E e ≤ 1 holds as long as a drawn request has the same chance of a label in both arms, whatever that chance
is and whatever the label says (the proofs are with the forms of e-values). By the time that all had their chance this
is so; labels fed as they come would break it, because one arm's may come first: a canary's wrong answers would be
compared with stable's that nobody has seen yet. The price is a delay of `mature_seconds`; a plan for people who label
within hours sets it, and watch_seconds, to hours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rollout.gates.base import (
    GateSpec,
    GateVerdict,
    Interval,
    LabelledStratum,
    Pairs,
    State,
    Verdict,
)
from rollout.gates.comparison import PASS_AT
from rollout.gates.settings import at_weight, merged
from rollout.judge import centred_labels, mixture, paired, past, weighted_labels
from rollout.judge.half_plane import HARM

#: Rollback's alternatives: how far beyond the tolerated share of wrong answers the canary lies.
HARM_EXCESS = np.array([0.003, 0.01, 0.03, 0.1, 0.3])
PAIRED_EXCESS = np.array([0.002, 0.005, 0.01, 0.03, 0.1])
#: Promotion's alternatives: an equal canary, with the growth-optimal stake and shares of it.
STAKE_SHARES = np.array([1.0, 0.4])
#: Stable's share of wrong answers before it is known: PRIOR_WRONG of PRIOR_REQUESTS.
PRIOR_WRONG, PRIOR_REQUESTS = 500.0, 10_000.0
PAST_SECONDS = 6 * 3600.0  # labels are few

Array = NDArray[np.float64]

_COUNTS = (
    "n_c",
    "n_b",
    "labels_c",
    "labels_b",
    "x_c",
    "x_b",
    "wrong_c",
    "wrong_b",
    "pairs",
    "only_c",
    "only_b",
    "unlabelled",
)


class AccuracyGate:
    """The 99.9 %-of-baseline rule to roll back; to promote, the step's margin excluded, or by pairs a smaller one.

    `value` is the canary's estimated loss of accuracy in points, `bound` the margin that PASS excludes; n labels of the
    canary's answers and pairs. Rule: accuracy_c ≥ s·accuracy_b, which is wrong_c ≤ s·wrong_b + (1 − s).
    """

    name: ClassVar[str] = "accuracy"
    source: ClassVar[str] = "labels"
    needs: ClassVar[tuple[str, ...]] = ()
    default_weight: ClassVar[float] = 0.25
    needs_reference: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]] = {
        "least_of_baseline": 0.999,
        "margin_points": {"1": 5.0, "5": 3.0, "25": 2.0, "50": 1.0},
        "paired_margin_points": 0.1,
        "mature_seconds": 600.0,
    }

    def fresh(self, settings: Mapping[str, Any]) -> State:
        """The state before any evidence. Raises ValueError("<key>: …") for a bad setting."""
        return {
            "settings": merged(self.defaults, settings),
            "weight_percent": None,
            "fail": mixture.fresh(len(HARM_EXCESS) + len(PAIRED_EXCESS)),
            "pass": [0.0] * len(STAKE_SHARES),
            "paired_pass": [0.0] * len(STAKE_SHARES),
            "past": past.fresh(3),  # of stable's labels: wrong ones weighted, all weighted, wrong ones
            "past_pairs": past.fresh(2),  # only one wrong, pairs
            "trouble": _nothing(),
            "step": _nothing(),
            "mirrored": _nothing(),
        }

    def enter_step(self, state: State, weight_percent: float) -> State:
        """Start the promotion's process of a step. What pairs say does not depend on the weight: it goes on."""
        return {
            **state,
            "weight_percent": float(weight_percent),
            "pass": [0.0] * len(STAKE_SHARES),
            "step": _nothing(),
        }

    def absorb(self, state: State, interval: Interval) -> State:
        """Add the strata and pairs that matured in the interval, weighed by what was known before it.

        An alternative's e-values are multiplied over intervals and the alternatives mixed last. The two kinds of
        labels are never multiplied with each other, so a request that is in both samples counts in either once.
        """
        pairs = interval.pairs or Pairs()
        harm = sum((self._harm(state, stratum) for stratum in interval.labels), np.zeros(len(HARM_EXCESS)))
        fail = mixture.absorb(
            state["fail"], np.concatenate([harm, self._paired_harm(state, pairs)]), interval.start
        )
        counted = _counted(interval.labels, pairs)
        new = {
            **state,
            "fail": fail,
            "past": past.add(state["past"], _past(interval.labels), interval.start, PAST_SECONDS),
            "past_pairs": past.add(state["past_pairs"], _past_pairs(pairs), interval.start, PAST_SECONDS),
            "trouble": _nothing() if mixture.log_e(fail) < 0 else _add(state["trouble"], counted),
        }
        if state["weight_percent"] is not None:
            passed = sum(
                (self._pass(state, stratum) for stratum in interval.labels), np.zeros(len(STAKE_SHARES))
            )
            new["pass"] = mixture.add(state["pass"], passed)
            new["paired_pass"] = mixture.add(state["paired_pass"], self._paired_pass(state, pairs))
            new["step"] = _add(state["step"], _counted(interval.labels, Pairs()))
            new["mirrored"] = _add(state["mirrored"], _counted((), pairs))
        return new

    def _harm(self, state: State, stratum: LabelledStratum) -> Array:
        """Against wrong_c ≤ s·wrong_b + (1 − s), by the labels of live requests."""
        least = state["settings"]["least_of_baseline"]
        base, weight = _base(state, stratum.max_weight)
        return weighted_labels.log_e(
            stratum,
            side=HARM,
            stake=weighted_labels.stake(
                excess=HARM_EXCESS,
                wrong_c=least * base + (1 - least) + HARM_EXCESS,
                wrong_b=base,
                mean_weight=weight,
                n_c=stratum.canary.n,
                n_b=stratum.stable.n,
                theta0=least,
            ),
            centre=base,
            theta0=least,
            delta=1 - least,
            max_weight=stratum.max_weight,
        )

    def _pass(self, state: State, stratum: LabelledStratum) -> Array:
        """Against a loss of the step's margin, betting that the canary equals stable."""
        base, weight = _base(state, stratum.max_weight)
        margin = self._margin_points(state) / 100
        stake = weighted_labels.stake(
            excess=margin * STAKE_SHARES,
            wrong_c=base,
            wrong_b=base,
            mean_weight=weight,
            n_c=stratum.canary.n,
            n_b=stratum.stable.n,
        )
        return centred_labels.non_inferiority_log_e(
            stratum, stake=stake, centre=base, margin=margin, max_weight=stratum.max_weight
        )

    def _paired_harm(self, state: State, pairs: Pairs) -> Array:
        """As `_harm`, by pairs. Agreements count as both right: that score speaks least against the canary.

        A disagreement without a label is left out: who labels it does not know which version said what.
        """
        least = state["settings"]["least_of_baseline"]
        return paired.line_log_e(
            side=HARM,
            both_right=pairs.agreed,
            only_canary_wrong=pairs.only_canary_wrong,
            only_stable_wrong=pairs.only_stable_wrong,
            both_wrong=pairs.both_wrong,
            stake=paired.stake(PAIRED_EXCESS, _one_sided(state)),
            theta0=least,
            delta=1 - least,
        )

    def _paired_pass(self, state: State, pairs: Pairs) -> Array:
        """Against a loss of `paired_margin_points`. A disagreement without a label counts as the canary's mistake."""
        margin = state["settings"]["paired_margin_points"] / 100
        return paired.non_inferiority_log_e(
            only_canary_wrong=pairs.only_canary_wrong + _unlabelled(pairs),
            only_stable_wrong=pairs.only_stable_wrong,
            rest=pairs.agreed + pairs.both_wrong,
            margin=margin,
            one_sided=_one_sided(state) / STAKE_SHARES,
        )

    def verdict(self, state: State, spec: GateSpec) -> GateVerdict:
        """PASS at e ≥ 20, by pairs alone (the smaller margin) or by both kinds of labels, else INCONCLUSIVE."""
        by_pairs = mixture.log_mean(state["paired_pass"])
        log_pass = float(np.logaddexp(mixture.log_mean(state["pass"]), by_pairs)) - math.log(2)
        counted = _add(state["step"], state["mirrored"])
        margin = self._margin_points(state)
        if by_pairs - math.log(2) >= math.log(PASS_AT):
            margin = state["settings"]["paired_margin_points"]
        passed = log_pass >= math.log(PASS_AT) and (counted["labels_c"] > 0 or counted["pairs"] > 0)
        if counted["labels_c"] + counted["labels_b"] + counted["pairs"] == 0:
            minutes = state["settings"]["mature_seconds"] / 60
            reason = f"no labels yet; they count {minutes:g} min after their request"
        else:
            excluded = "excluded" if passed else "not excluded yet"
            reason = f"{_sentence(counted)}; loss of {margin:g} points {excluded}"
        return GateVerdict(
            name=self.name,
            verdict=Verdict.PASS if passed else Verdict.INCONCLUSIVE,
            value=_loss_points(counted),
            bound=margin,
            n=counted["labels_c"] + counted["pairs"],
            reason=reason,
            log_e_fail=mixture.log_e(state["fail"]),
            log_e_pass=log_pass,
            required=spec.required,
            dry_run=spec.dry_run,
        )

    def failure(self, state: State, spec: GateSpec) -> GateVerdict:
        """The FAIL that the judge gives when E crosses its line, with the labels since trouble began."""
        least, counted = state["settings"]["least_of_baseline"], state["trouble"]
        stable_wrong = counted["x_b"] / counted["n_b"] if counted["n_b"] else 0.0
        return GateVerdict(
            name=self.name,
            verdict=Verdict.FAIL,
            value=_loss_points(counted),
            bound=100 * (1 - least) * (1 - stable_wrong),
            n=counted["labels_c"] + counted["pairs"],
            reason=f"{_sentence(counted)}; at least {100 * least:g} % of stable's accuracy is asked for",
            log_e_fail=mixture.log_e(state["fail"]),
            log_e_pass=self.verdict(state, spec).log_e_pass,
            required=spec.required,
            dry_run=spec.dry_run,
        )

    def _margin_points(self, state: State) -> float:
        return at_weight(state["settings"]["margin_points"], state["weight_percent"] or 0.0)


def _base(state: State, max_weight: float) -> tuple[float, float]:
    """Stable's past share of wrong answers, strictly inside (0, 1), and the mean weight of a wrong label."""
    wrong, requests, labels = past.counts(state["past"])
    weight = (wrong + max_weight) / (labels + 1)
    return float((wrong + PRIOR_WRONG) / (requests + PRIOR_REQUESTS)), float(weight)


def _one_sided(state: State) -> float:
    return paired.expected_one_sided(*(float(count) for count in past.counts(state["past_pairs"])))


def _past(strata: tuple[LabelledStratum, ...]) -> Array:
    arms = [stratum.stable for stratum in strata]
    # weighted labels, not requests: where nobody labelled, nothing was learned about stable
    return np.array(
        [
            sum(_weighted(arm.classes) for arm in arms),
            sum(_weighted(arm.labelled) for arm in arms),
            sum(_sum(arm.classes) for arm in arms),
        ],
        dtype=float,
    )


def _past_pairs(pairs: Pairs) -> Array:
    known = pairs.compared - _unlabelled(pairs)
    return np.array([pairs.only_canary_wrong + pairs.only_stable_wrong, known], dtype=float)


def _unlabelled(pairs: Pairs) -> int:
    """Disagreements that nobody has labelled."""
    labelled = pairs.only_canary_wrong + pairs.only_stable_wrong + pairs.both_wrong
    return max(0, pairs.compared - pairs.agreed - labelled)


def _nothing() -> State:
    return dict.fromkeys(_COUNTS, 0)


def _add(one: State, other: State) -> State:
    return {name: one[name] + other[name] for name in _COUNTS}


def _counted(strata: tuple[LabelledStratum, ...], pairs: Pairs) -> State:
    """What an operator reads: labels and wrong ones, x = weighted wrong answers among n requests, pairs."""
    arms = {
        "c": [stratum.canary for stratum in strata if stratum.canary.labelled],
        "b": [stratum.stable for stratum in strata if stratum.stable.labelled],
    }
    counts = _nothing()
    for end, found in arms.items():
        counts[f"labels_{end}"] = sum(_sum(arm.labelled) for arm in found)
        counts[f"wrong_{end}"] = sum(_sum(arm.classes) for arm in found)
        counts[f"n_{end}"] = sum(_weighted(arm.labelled) for arm in found)
        counts[f"x_{end}"] = sum(_weighted(arm.classes) for arm in found)
    counts |= {
        "pairs": pairs.compared,
        "only_c": pairs.only_canary_wrong,
        "only_b": pairs.only_stable_wrong,
        "unlabelled": _unlabelled(pairs),
    }
    return counts


def _sum(classes: tuple[tuple[float, int], ...]) -> int:
    return sum(n for _, n in classes)


def _weighted(classes: tuple[tuple[float, int], ...]) -> float:
    return sum(weight * n for weight, n in classes)


def _loss_points(counted: State) -> float | None:
    """The canary's loss of accuracy in points: by live labels (Hájek) where both arms have some, else by pairs."""
    if counted["n_c"] and counted["n_b"]:
        return float(100 * (counted["x_c"] / counted["n_c"] - counted["x_b"] / counted["n_b"]))
    if counted["pairs"]:
        return float(100 * (counted["only_c"] - counted["only_b"]) / counted["pairs"])
    return None


def _sentence(counted: State) -> str:
    """ "canary wrong in 12 of 220 labels (5.1 % of requests), stable 80 of 4,100 (2 %)", and the pairs."""
    told = []
    if counted["labels_c"] or counted["labels_b"]:
        told.append(f"canary wrong in {_share(counted, 'c')}, stable in {_share(counted, 'b')}")
    if counted["pairs"]:
        told.append(
            f"of {counted['pairs']:,} mirrored requests only the canary was wrong in {counted['only_c']:,}, only "
            f"stable in {counted['only_b']:,}, {counted['unlabelled']:,} disagreements without a label"
        )
    return "; ".join(told) or "canary and stable: no labels"


def _share(counted: State, end: str) -> str:
    labels, wrong, n = counted[f"labels_{end}"], counted[f"wrong_{end}"], counted[f"n_{end}"]
    if not labels:
        return "no label"
    return f"{wrong:,} of {labels:,} labels ({100 * counted[f'x_{end}'] / n:.2f} % of requests)"
