"""How often a model is asked for, as one number that costs a comparison a request.

A visit is a request that comes at least VISIT_S after the latest that counted: a hundred requests in one second cost one wake, if
the model is asleep, and so count as one. Visits fade: what was asked for DEMAND_S ago counts a third.
"""

from math import exp

VISIT_S = 5.0
DEMAND_S = 600.0
FIRST = 0.25


def visited(visits: float, passed_s: float) -> float:
    """One visit more, `passed_s` after the latest. The first of all counts little: many a model is asked for once."""
    return faded(visits, passed_s) + (1.0 if visits else FIRST)


def faded(visits: float, passed_s: float) -> float:
    """What is left of the visits."""
    return visits * exp(-passed_s / DEMAND_S) if passed_s > 0 else visits


def rate(visits: float, passed_s: float) -> float:
    """Visits a second to be expected."""
    return faded(visits, passed_s) / DEMAND_S
