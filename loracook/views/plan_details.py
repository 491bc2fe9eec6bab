"""A plan with all that is known of it, as values for the views."""

from dataclasses import dataclass

from loracook.estimate.forecast import Forecast
from loracook.planner import Plan
from loracook.training.memory_check import MemoryCheck


@dataclass(frozen=True)
class PlanDetails:
    """A plan with its forecast; None where it cannot be made here, and `unknown` says why."""

    plan: Plan
    forecast: Forecast | None
    unknown: tuple[str, ...] = ()
    probe: MemoryCheck | None = None

    @property
    def all_unknown(self) -> list[str]:
        """Everything that is unknown, and why."""
        forecast = self.forecast
        more = (*forecast.estimate.unknown, forecast.hub_info.unknown) if forecast else ()
        return [*self.unknown, *filter(None, more)]

    @property
    def seconds_per_step(self) -> float | None:
        """The most that a step can take, measured on the largest batch."""
        if self.probe is None or self.probe.seconds is None:
            return None
        accumulation: int = self.plan.recipe["train"].get("gradient_accumulation_steps", 1)
        return self.probe.seconds * accumulation

    @property
    def seconds(self) -> float | None:
        """The most that training can take."""
        if self.forecast is None or self.forecast.estimate.steps is None or self.seconds_per_step is None:
            return None
        return self.seconds_per_step * self.forecast.estimate.steps.total
