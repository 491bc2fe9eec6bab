"""A plan with all that is known of it, as values for the views."""

from dataclasses import dataclass

from loracook.estimate.forecast import Forecast
from loracook.planner import Plan
from loracook.training.memory_check import MemoryCheck
from loracook.training.processes import ONE, Processes


@dataclass(frozen=True)
class PlanDetails:
    """A plan with its forecast; None where it cannot be made here, and `unknown` says why.

    With several `processes`, memory and the largest batch of its forecast are those of each of them. `tuned`
    says which faster settings are known on this machine, empty where none are.
    """

    plan: Plan
    forecast: Forecast | None
    unknown: tuple[str, ...] = ()
    probe: MemoryCheck | None = None
    processes: Processes = ONE
    tuned: str = ""

    @property
    def notes(self) -> list[str]:
        """What else there is to know before the run, in sentences."""
        own = self.forecast.estimate.meta_model.notes if self.forecast else ()
        return [*own, *filter(None, [self.tuned])]

    @property
    def all_unknown(self) -> list[str]:
        """Everything that is unknown, and why."""
        forecast = self.forecast
        more = (*forecast.estimate.unknown, forecast.hub_info.unknown) if forecast else ()
        return [*self.unknown, *filter(None, more)]

    @property
    def seconds_per_step(self) -> float | None:
        """The most that a step can take, measured on the largest batch."""
        seconds = self.probe.seconds if self.probe else None
        return seconds and seconds * self.plan.recipe["train"].get("gradient_accumulation_steps", 1)

    @property
    def seconds(self) -> float | None:
        """The most that training can take."""
        steps = self.forecast and self.forecast.estimate.steps
        return self.seconds_per_step * steps.total if steps and self.seconds_per_step else None
