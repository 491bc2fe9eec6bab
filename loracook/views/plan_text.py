"""The stages of a plan as aligned lines."""

from __future__ import annotations

from loracook.planner import Plan


def lines(planned: Plan) -> list[str]:
    """The plan as aligned lines: each stage with its state, its folder and what it does."""
    recipe = planned.recipe
    about = f": {recipe['description']}" if "description" in recipe else ""
    rows = [(stage.name, "done" if stage.done else "to do", stage) for stage in planned.stages]
    folder = max(len(str(stage.folder)) for stage in planned.stages)
    stages = [
        f"  {name:<10}{state:<7}{stage.folder!s:<{folder}}  {stage.summary}" for name, state, stage in rows
    ]
    faults = [f"  {stage.name} will be run again: {stage.fault}" for stage in planned.stages if stage.fault]
    return [f"{recipe.name}{about}", *stages, *faults]
