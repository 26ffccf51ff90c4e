"""Writes tests/golden/family.jsonl: ``python -m tests.make_family``."""

import json
from collections.abc import Iterator
from typing import Any

from tests.family import GOLDEN, Plain, far_steps, rate


def of(kind: str, **arguments: Any) -> Plain:
    return {"kind": kind, **arguments}


def made_of(kind: str, schedule: Plain, **arguments: Any) -> Plain:
    return {"kind": kind, "schedule": schedule, **arguments}


def join(*schedules: Plain, boundaries: list[int] | None = None) -> Plain:
    return {"kind": "join", "schedules": list(schedules), **({} if boundaries is None else {"boundaries": boundaries})}


def descriptions() -> Iterator[Plain]:
    restarts = of("warm_restarts", max_lr=0.1, first_cycle=10, base_lr=0.001, cycle_mult=2)
    triangular = of("triangular", base_lr=0.001, max_lr=0.006, step_size=20)
    one_cycle = of("one_cycle", max_lr=0.1, total_steps=100)
    shrinking = of("triangular", base_lr=0.01, max_lr=0.1, step_size=40, cycle_mult=0.5)

    # Cycles of one length
    yield of("triangular", base_lr=0.001, max_lr=0.006, step_size=7, shape="cosine")
    yield of("triangular", base_lr=0.0, max_lr=1.0, step_size=20.3, step_size_down=1000 / 7, shape="cosine")
    yield of("triangular", base_lr=0.1, max_lr=0.1, step_size=10, shape="cosine")
    yield of("triangular2", base_lr=0.001, max_lr=0.006, step_size=977.5, shape="cosine")
    yield of("triangular2", base_lr=0.0, max_lr=1.0, step_size=2, step_size_down=8, shape="cosine")
    yield of("exp_range", base_lr=1e-05, max_lr=0.1, step_size=1000 / 3, gamma=0.999, shape="cosine")
    yield of("cyclic", base_lr=0.001, max_lr=0.006, step_size=20, mode="peak_decay", peak_decay=0.9)
    yield of("cyclic", base_lr=0.0, max_lr=0.5, step_size=0.7, step_size_down=12.5, mode="peak_decay", peak_decay=0.99)
    yield of("cyclic", base_lr=0.0, max_lr=0.5, step_size=0, step_size_down=12, mode="triangular2")
    yield of("cyclic", base_lr=0.1, max_lr=0.3, step_size=0, step_size_down=12.7, mode="exp_range", gamma=0.9999)
    yield of(
        "cyclic",
        base_lr=0.1,
        max_lr=0.3,
        step_size=0,
        step_size_down=50.5,
        shape="cosine",
        mode="peak_decay",
        peak_decay=0.5,
    )
    # Growing and shrinking cycles
    yield of("triangular", base_lr=0.001, max_lr=0.006, step_size=10, cycle_mult=2)
    yield of("triangular", base_lr=0.0, max_lr=1.0, step_size=1, step_size_down=0.5, cycle_mult=1.1)
    yield shrinking
    yield of("triangular", base_lr=0.0, max_lr=0.1, step_size=0, step_size_down=1000, cycle_mult=0.9)
    yield of("triangular2", base_lr=0.001, max_lr=0.006, step_size=2.5, step_size_down=7.25, cycle_mult=3)
    yield of("triangular2", base_lr=0.0, max_lr=0.1, step_size=100.1, shape="cosine", cycle_mult=0.9)
    yield of("exp_range", base_lr=0.001, max_lr=0.006, step_size=5, gamma=0.999, cycle_mult=1.5)
    yield of("cyclic", base_lr=0.0, max_lr=1.0, step_size=1000 / 3, mode="peak_decay", peak_decay=0.8, cycle_mult=1.05)
    yield of("triangular", base_lr=0.001, max_lr=0.006, step_size=6.666, step_size_down=0.001, cycle_mult=0.5)
    yield of("triangular", base_lr=0.001, max_lr=0.006, step_size=0.25, step_size_down=0.5, cycle_mult=2)
    # Warm restarts
    yield restarts
    yield of("warm_restarts", max_lr=0.1, first_cycle=10)
    yield of("warm_restarts", max_lr=1.0, first_cycle=1)
    yield of("warm_restarts", max_lr=1.0, first_cycle=1, cycle_mult=3, base_lr=0.25)
    yield of("warm_restarts", max_lr=0.05, first_cycle=50.5, cycle_mult=1.5, peak_decay=0.9)
    yield of("warm_restarts", max_lr=0.05, first_cycle=50.5, peak_decay=0.75, base_lr=1e-5)
    yield of("warm_restarts", max_lr=0.3, first_cycle=10, cycle_mult=1.1, base_lr=0.1)
    yield of("warm_restarts", max_lr=0.3, first_cycle=1000, cycle_mult=0.5)
    yield of("warm_restarts", max_lr=0.3, first_cycle=100, cycle_mult=0.9, peak_decay=0.99, base_lr=0.001)
    yield of("warm_restarts", max_lr=0.3, first_cycle=2**33, cycle_mult=2)
    yield of("warm_restarts", max_lr=0.3, first_cycle=10, base_lr=0.3)
    yield of("warm_restarts", max_lr=0.3, first_cycle=0.5, cycle_mult=0.5, base_lr=0.1)
    yield of("warm_restarts", max_lr=0.3, first_cycle=0.1, cycle_mult=1.5, base_lr=0.1)
    # Phases
    yield of("constant", lr=0.01)
    yield of("constant", lr=0.0)
    yield of("ramp", start=0.0, end=0.1, steps=7)
    yield of("ramp", start=0.1, end=0.0, steps=2**40)
    yield of("ramp", start=0.3, end=0.1, steps=10.75, shape="cosine")
    yield of("ramp", start=1e-7, end=10.0, steps=1000, shape="cosine")
    yield of("phases", levels=[0.1])
    yield of("phases", levels=[0.0, 1.0, 0.5], lengths=[2, 4], total_steps=50)
    yield of("phases", levels=[0.1, 0.7, 0.7, 0.2, 0.3], lengths=[10.5, 1000 / 7, 0.001, 3**20], shape="cosine")
    yield of("phases", levels=[1e-9, 0.1, 1e-9, 1e-12], lengths=[1.1, 2.2, 2**31])
    yield of("phases", levels=[0.1, 0.2, 0.0, 0.2], lengths=[0.2, 0.3, 0.6], shape="cosine")
    # Trainings
    yield of("cosine", max_lr=0.1, total_steps=1000)
    yield of("cosine", max_lr=0.003, total_steps=977, warmup_steps=37, min_lr=1e-5)
    yield of("cosine", max_lr=1.0, total_steps=3 * 10**9, warmup_steps=10**4)
    yield of("linear", max_lr=0.1, total_steps=1000)
    yield of("linear", max_lr=0.003, total_steps=977, warmup_steps=37, min_lr=1e-5)
    yield of("linear", max_lr=0.01, total_steps=3, warmup_steps=1, min_lr=0.01)
    yield of("wsd", max_lr=0.1, total_steps=1000, decay_steps=200)
    yield of("wsd", max_lr=0.1, total_steps=50, warmup_steps=1, decay_steps=48, min_lr=0.001)
    yield of("wsd", max_lr=0.1, total_steps=50, decay_steps=49)
    yield of("wsd", max_lr=0.003, total_steps=10**10, warmup_steps=10**4, decay_steps=10**9 + 7, min_lr=1e-6)
    yield of("wsd", max_lr=0.3, total_steps=1000, warmup_steps=100, decay_steps=200, decay="linear")
    yield of("wsd", max_lr=0.3, total_steps=1000, warmup_steps=100, decay_steps=200, min_lr=0.1, decay="cosine")
    yield of("phases", levels=[0.1, 0.7, 0.7, 0.2, 0.3], lengths=[10.5, 20, 100 / 3, 3**20], shape="1-sqrt")
    yield of("triangular", base_lr=0.001, max_lr=0.006, step_size=20.3, step_size_down=7, shape="1-sqrt")
    yield of("warmup", schedule=of("wsd", max_lr=1.0, total_steps=20, decay_steps=9), steps=9, shape="1-sqrt")
    # One cycle
    yield one_cycle
    yield of("one_cycle", max_lr=0.1, total_steps=100, anneal_strategy="linear")
    yield of("one_cycle", max_lr=0.01, total_steps=977, pct_start=0.237, three_phase=True)
    yield of("one_cycle", max_lr=0.01, total_steps=977, pct_start=0.237, three_phase=True, anneal_strategy="linear")
    yield of("one_cycle", max_lr=1.0, total_steps=10, pct_start=0.1, anneal_strategy="cos")
    yield of("one_cycle", max_lr=1.0, total_steps=10, pct_start=0.1, three_phase=True, anneal_strategy="linear")
    yield of("one_cycle", max_lr=1.0, total_steps=11, pct_start=0.0)
    yield of("one_cycle", max_lr=1.0, total_steps=10, pct_start=1.0, anneal_strategy="linear")
    yield of("one_cycle", max_lr=1.0, total_steps=50, pct_start=0.5, three_phase=True, div_factor=1.0)
    yield of("one_cycle", max_lr=1.0, total_steps=7, pct_start=1 / 3, div_factor=3.0, final_div_factor=7.0)
    yield of("one_cycle", max_lr=1.0, total_steps=3 * 10**9, pct_start=0.123456, final_div_factor=1.0)
    yield of("one_cycle", max_lr=1.0, total_steps=10**12, pct_start=0.3, anneal_strategy="linear", final_div_factor=1e9)
    yield of("one_cycle_fastai", max_lr=0.1, total_steps=100)
    yield of("one_cycle_fastai", max_lr=0.1, total_steps=77, pct_start=0.3, div=10.0, div_final=1e3)
    yield of("one_cycle_fastai", max_lr=0.1, total_steps=10, pct_start=0.0)
    yield of("one_cycle_fastai", max_lr=0.1, total_steps=10, pct_start=1.0)
    yield of("one_cycle_fastai", max_lr=0.1, total_steps=2**32 + 1, pct_start=0.1)
    # Joins
    yield join(of("constant", lr=0.5), of("triangular", base_lr=0.1, max_lr=1.0, step_size=3.5), boundaries=[3])
    yield join(one_cycle, restarts)
    yield join(triangular, one_cycle, of("constant", lr=0.001), boundaries=[50, 2**31])
    yield join(shrinking, of("ramp", start=0.01, end=0.02, steps=9.5))
    yield join(
        join(join(of("ramp", start=0.0, end=0.1, steps=4), triangular), restarts, boundaries=[70]),
        one_cycle,
        boundaries=[10**6],
    )
    yield join(
        of("ramp", start=0.1, end=0.2, steps=5), join(of("constant", lr=0.3), join(of("constant", lr=0.4), shrinking))
    )
    yield join(restarts, made_of("multiple", restarts, factor=0.1), boundaries=[2**40])
    # Warm-ups
    yield made_of("warmup", restarts, steps=5)
    yield made_of("warmup", triangular, steps=100, start=1e-6, shape="cosine")
    yield made_of("warmup", of("triangular2", base_lr=0.0, max_lr=1.0, step_size=4), steps=10, start=0.5)
    yield made_of("warmup", of("exp_range", base_lr=0.1, max_lr=1.0, step_size=4.5, gamma=0.99), steps=3, start=0.2)
    yield made_of("warmup", one_cycle, steps=1)
    yield made_of("warmup", made_of("warmup", of("constant", lr=0.1), steps=7, start=0.05), steps=7, shape="cosine")
    yield made_of("warmup", join(one_cycle, triangular), steps=50, start=0.1)
    # Multiples and clips
    yield made_of("multiple", triangular, factor=0.1)
    yield made_of("multiple", one_cycle, factor=3.3)
    yield made_of("multiple", made_of("multiple", restarts, factor=1 / 3), factor=0.7)
    yield made_of("multiple", of("constant", lr=0.1), factor=0.0)
    yield made_of("clip", triangular, low=0.002, high=0.005)
    yield made_of("clip", of("exp_range", base_lr=0.0, max_lr=1.0, step_size=7, gamma=0.9), low=1e-7)
    yield made_of("clip", one_cycle, high=0.05)
    yield made_of("clip", made_of("warmup", restarts, steps=20), low=0.01, high=0.01)
    yield made_of("multiple", made_of("clip", join(one_cycle, restarts), low=1e-5, high=0.09), factor=0.37)
    # Momentum
    yield made_of("momentum", triangular)
    yield made_of("momentum", of("triangular2", base_lr=0.1, max_lr=0.7, step_size=9.7), low=0.8, high=0.99)
    yield made_of("momentum", of("constant", lr=0.1))
    yield made_of("momentum", one_cycle)
    yield made_of("momentum", restarts, low=0.0, high=0.9)
    yield made_of("momentum", of("one_cycle", max_lr=0.3, total_steps=50, anneal_strategy="linear"), low=0.5, high=0.9)
    yield made_of("momentum", made_of("warmup", join(one_cycle, triangular), steps=10, start=0.05))
    yield made_of("momentum", made_of("clip", triangular, low=0.002, high=0.005), low=0.85, high=0.85)
    # After the end
    yield made_of("after_end", one_cycle, rule="repeat")
    yield made_of("after_end", one_cycle, rule="hold")
    yield made_of("after_end", of("linear", max_lr=0.1, total_steps=9, warmup_steps=2), rule="repeat")
    yield made_of("after_end", shrinking, rule="repeat")
    yield made_of("after_end", of("phases", levels=[0.1, 0.3, 0.2], lengths=[2.5, 3.2]), rule="repeat")
    yield made_of("after_end", of("constant", lr=0.1), rule="repeat")
    yield made_of("after_end", join(one_cycle, shrinking, of("ramp", start=0.0, end=1.0, steps=3)), rule="repeat")
    yield made_of("after_end", of("one_cycle", max_lr=0.1, total_steps=2**33), rule="repeat")
    yield made_of("momentum", made_of("multiple", made_of("after_end", one_cycle, rule="repeat"), factor=0.5))
    yield join(made_of("after_end", of("ramp", start=0.0, end=0.1, steps=3), rule="repeat"), one_cycle, boundaries=[10])


def rows() -> Iterator[str]:
    for plain in descriptions():
        steps = far_steps(plain)
        yield json.dumps({"schedule": plain, "steps": steps, "lrs": [rate(plain, step) for step in steps]})


if __name__ == "__main__":
    (GOLDEN / "family.jsonl").write_text("".join(f"{row}\n" for row in rows()), encoding="utf-8")
