"""When a failed engine may start again: back-off by intensity and period, then giving up."""

from vllama.actors.core.messages import Policy, fact


@fact
class Verdict:
    """`failures` are the times that still count, the new one included; nothing starts before `not_before`."""

    failures: int
    not_before: float
    give_up: bool


def verdict(failures: tuple[float, ...], now: float, policy: Policy, *, was_ready: bool) -> Verdict:
    """Count one more failure. The first exit of an engine that had served costs no wait: the next request starts it again."""
    recent = sum(1 for at in failures if now - at < policy.restarts_period_s) + 1
    if recent >= policy.restarts_max:
        return Verdict(recent, now, give_up=True)
    if recent == 1 and was_ready:
        return Verdict(recent, now, give_up=False)
    wait = min(policy.backoff_s * 2 ** (recent - 1), policy.backoff_max_s)
    return Verdict(recent, now + wait, give_up=False)
