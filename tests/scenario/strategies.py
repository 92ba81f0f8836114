"""Random good scenarios, as the plain data a YAML file would hold; every kind of part and nearly every key occurs."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Data = dict[str, Any]

counts = st.integers(1, 10**12)
positive = st.floats(1e-300, 1e30) | st.integers(1, 10**6)
non_negative = st.just(0.0) | positive
seconds = st.floats(1e-300, 1e9) | st.integers(1, 10**6)
delays = st.just(0.0) | seconds
shares = st.floats(0.001, 0.999)
texts = st.text(min_size=1, max_size=20)
names = st.text(
    st.characters(categories=["L", "N"], include_characters=" -_=:#'\"1e3.~"), min_size=1, max_size=20
).filter(lambda name: name.isprintable() and not name.startswith("."))
words = st.sampled_from(
    ["yes", "no", "null", "~", "1e-3", "1_000", "0x10", "true", "2024-01-01", ".5e3", "a: b", "- a", ""]
)
options = st.dictionaries(
    st.text("abcdefgh_", min_size=1, max_size=8).filter(lambda key: key != "name"),
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(-1e30, 1e30)
    | words
    | st.lists(shares),
    max_size=4,
)


def mapping(name: str | None, /, optional: dict[str, Any] | None = None, **required: Any) -> st.SearchStrategy[Data]:
    """A mapping with these required keys, some of the optional ones, and that name where one is given."""
    if name is not None:
        required = {"name": st.just(name), **required}
    return st.fixed_dictionaries(required, optional=optional or {})


optimizers = st.builds(lambda name, more: {"name": name, **more}, st.sampled_from(["SGD", "Adam"]), options)
schedules = st.one_of(
    mapping("constant", {"warmup": st.integers(0, 9)}),
    mapping("step", {"factor": shares, "clock": st.sampled_from(["steps", "versions"])}, every=counts),
    st.builds(
        lambda name, rest: {**rest, "name": name},
        st.sampled_from(["linear", "cosine"]), mapping(None, {"final": shares}, length=counts),
    ),
)  # fmt: skip
divisions = st.sampled_from(["shared", "sharded", "by_key"]) | mapping("dirichlet", alpha=positive)
quadratics = mapping(
    "quadratic",
    {
        "noise": non_negative,
        "batch_size": counts,
        "start": st.floats(-1e9, 1e9),
        "optimizer": optimizers,
        "schedule": schedules,
    },
    curvature=st.lists(positive, min_size=1, max_size=4),
)
classifications = mapping(
    "classification",
    {
        "data_folder": st.none() | texts,
        "model": texts,
        "model_options": options,
        "batch_size": counts,
        "optimizer": optimizers,
        "train_samples": st.none() | st.integers(1, 10**8),
        "loss": st.none() | st.just("package.module:loss"),
        "data": divisions,
        "schedule": st.none() | schedules,
        "clip": mapping(None, norm=positive) | mapping(None, value=positive),
        "precision": st.sampled_from(["float32", "bfloat16"]),
    },
    dataset=st.sampled_from(["digits", "fashion-mnist", "package.module:data"]),
)
timings = mapping("timing", size_bytes=st.integers(0, 10**15), step_s=seconds)

either_way = st.one_of(
    mapping("scale", {"factor": st.none() | positive}),
    mapping("momentum", {"nesterov": st.booleans()}, beta=st.just(0) | shares),
    st.just("scale"),
)
descents = st.one_of(
    mapping("sgd", lr=positive),
    mapping("adagrad", {"eps": positive}, lr=positive),
    mapping("adadelta", {"lr": positive, "rho": shares, "eps": positive}),
    st.just("adadelta"),
)
on_deltas = st.lists(either_way | st.just("add") | mapping("add"), max_size=3)
on_gradients = st.builds(
    lambda before, descent, after: [*before, descent, *after], st.lists(either_way, max_size=2), descents, on_deltas
)


@st.composite
def algorithms(draw: st.DrawFn) -> Data:
    name = draw(st.sampled_from(["asgd", "downpour", "ssp", "sync_sgd", "sgd", "hogwild"]))
    data: Data = {"name": name}
    if name == "downpour" and draw(st.booleans()):
        data["depth"] = draw(st.integers(1, 1000))
    if name in ("asgd", "downpour") and draw(st.booleans()):
        data |= {"n_fetch": draw(counts), "n_push": draw(counts)}
    elif name != "sgd" or draw(st.booleans()):
        data["n_sync"] = draw(counts)
    if name == "ssp":
        data["bound"] = draw(st.integers(0, 9))
    if name not in ("sgd", "hogwild"):
        gradient = draw(st.booleans())
        rule = draw(on_gradients if gradient else on_deltas)
        if name == "sync_sgd" and draw(st.booleans()):
            rule = ["mean", *rule]
        if rule:
            data["rule"] = rule
        if gradient:
            data["push"] = "gradient"
    if draw(st.booleans()):
        data["momentum_at_fetch"] = draw(st.sampled_from(["keep", "reset"]))
    return data


computes = st.one_of(
    mapping(None, {"distribution": st.sampled_from(["constant", "exponential"])}, step_s=seconds),
    mapping(None, {"cv": st.floats(1e-9, 1e3)}, distribution=st.sampled_from(["lognormal", "gamma"]), step_s=seconds),
    mapping(None, distribution=st.just("empirical"), samples_s=st.lists(seconds, min_size=1, max_size=9)),
    mapping(None, distribution=st.just("empirical"), run=texts),
)
slow_phases = mapping(None, every_s=seconds, length_s=seconds, factor=st.floats(1, 1e6, exclude_min=True))
rates = st.none() | st.floats(1, 1e300) | st.integers(1, 10**12)
parts = {
    "speeds": st.lists(positive, min_size=1, max_size=4),
    "device": mapping(
        None,
        {"memory_bytes": st.none() | counts, "vectors": counts, "activations_bytes": st.integers(0, 10**12)},
    ),
    "host": mapping(None, {"workers": counts, "bandwidth_bytes_per_s": rates}),
    "staging": mapping(None, {"latency_s": delays, "to_host_bytes_per_s": rates, "to_device_bytes_per_s": rates}),
    "client": mapping(None, {"push_s": delays, "fetch_s": delays}),
}


@st.composite
def links(draw: st.DrawFn, /, **more: Any) -> Data:
    ways = draw(st.sampled_from([("bandwidth_bytes_per_s",), ("up_bytes_per_s", "down_bytes_per_s")]))
    data = draw(mapping(None, {"latency_s": delays, "shared": st.booleans()} | dict.fromkeys(ways, rates), **more))
    if data.get("shared"):
        data |= draw(mapping(None, {"flow_bytes_per_s": rates}))
    return data


@st.composite
def servers(draw: st.DrawFn) -> Data:
    data = draw(
        mapping(
            None,
            {
                **{"push_s": delays, "push_bytes_per_s": rates, "bandwidth_bytes_per_s": rates},
                **{"distribution": st.sampled_from(["constant", "exponential"]), "count": st.integers(1, 9)},
            },
        )
    )
    one_sided = {"one_sided_fetch": st.just(True), "fetch_s": st.just(0.0), "fetch_bytes_per_s": st.none()}
    queueing = {"one_sided_fetch": st.just(False), "fetch_s": delays, "fetch_bytes_per_s": rates}
    data |= draw(mapping(None, {}, **one_sided) | mapping(None, queueing))
    if data.get("count", 1) > 1:
        data |= draw(mapping(None, {"independent": st.booleans()}))
    return data


@st.composite
def grouped(draw: st.DrawFn, workers: int, count: int) -> Data:
    """Groups that hold these workers, and links from some of them to some of the `count` servers."""
    known = draw(st.lists(texts, min_size=1, max_size=min(3, workers), unique=True))
    sizes = draw(st.lists(st.integers(1, workers // len(known)), min_size=len(known) - 1, max_size=len(known) - 1))
    rest = draw(st.sampled_from([workers - sum(sizes), None]))
    groups = [
        {"name": name, "workers": size} | draw(mapping(None, {"speed": positive}))
        for name, size in zip(known, draw(st.permutations([*sizes, rest])), strict=True)
    ]
    linked = draw(st.lists(st.sampled_from(known), unique=True))
    which = st.none() | st.lists(st.integers(0, count - 1), min_size=1, unique=True)
    return {"groups": groups, "links": [draw(links(group=st.just(name), servers=which)) for name in linked]}


@st.composite
def hardwares(draw: st.DrawFn, workers: int) -> Data:
    data = draw(mapping(None, {**parts, "link": links(), "server": servers()}))
    if draw(st.booleans()):
        data |= draw(grouped(workers, data.get("server", {}).get("count", 1)))
    if draw(st.booleans()) and data.get("server", {}).get("count", 1) == 1:
        data["cores"] = draw(counts)
    elif draw(st.booleans()):
        data["host"] = data.get("host", {}) | {"cores": draw(counts)}
    if "cores" not in data and "cores" not in data.get("host", {}) and draw(st.booleans()):
        data["slow_phases"] = draw(slow_phases)
    elif draw(st.booleans()):
        data["device"] = data.get("device", {}) | {"workers": draw(counts)}
        if data.get("host", {}).get("workers", 1) > 1:  # a device belongs to one host
            data["host"]["workers"] *= data["device"]["workers"]
    return data


def emulatable(hardware: Data) -> Data:
    """Without what real processes do not pretend to have."""
    not_there = {
        "device": {"workers"},
        "host": {"cores", "bandwidth_bytes_per_s"},
        "link": {"shared", "flow_bytes_per_s"},
        "server": {"bandwidth_bytes_per_s", "count", "independent", "distribution", "one_sided_fetch"},
    }
    kept = {key: value for key, value in hardware.items() if key not in ("links", "cores", *not_there)}
    for key in not_there.keys() & hardware.keys():
        kept[key] = {inside: value for inside, value in hardware[key].items() if inside not in not_there[key]}
    return kept


def faults(workers: int, simulated: bool) -> st.SearchStrategy[Data]:
    """Random and scheduled ones, and what is done about them."""
    who = st.integers(0, workers - 1)
    begins = st.floats(0, 1e8)
    lasting = st.builds(
        lambda one, length: {**one, "until_s": one["at_s"] + length},
        mapping("stop", worker=who, at_s=begins) | mapping("slow", worker=who, at_s=begins, factor=st.floats(1, 1e6)),
        st.floats(1, 1e8),
    )
    if simulated:
        lasting = lasting.map(lambda one: one if one["name"] == "slow" else {**one, "name": "slow", "factor": 2})
    events = st.one_of(mapping("kill", {"repair_s": delays}, worker=who, at_s=delays), lasting)
    common = {"schedule": st.lists(events, max_size=3), "on_death": st.sampled_from(["restart", "continue", "stop"])}
    own = {"detect_s": delays} if simulated else {"silent_s": st.none() | seconds}
    drawn = mapping(None, common | own, mean_time_between_failures_s=seconds, mean_time_to_repair_s=seconds)
    return mapping(None, common | own) | drawn


budgets = st.one_of(
    mapping(None, {"updates": st.none() | counts, "seconds": seconds, "target_window": counts}, minibatches=counts),
    mapping(None, seconds=seconds),
)
backends = st.one_of(
    st.sampled_from(["inline", "sim", "process"]),
    mapping(None, {"device": st.sampled_from(["cpu", "emulated"])}, name=st.sampled_from(["sim", "process"])),
    mapping(
        None, {"deterministic": st.booleans()}, name=st.sampled_from(["inline", "sim", "process"]),
        device=st.just("cuda"),
    ),
)  # fmt: skip


@st.composite
def scenarios(draw: st.DrawFn) -> Data:
    task = draw(quadratics | classifications | timings)
    algorithm = draw(algorithms())
    if algorithm.get("push") == "gradient":
        task.pop("schedule", None)
    compute = draw(computes)
    data: Data = {"name": draw(names), "task": task, "algorithm": algorithm, "budget": draw(budgets)}
    if algorithm["name"] != "sgd":
        data["workers"] = draw(st.integers(1, 100_000))
    hardware: Data = draw(hardwares(data.get("workers", 1)))
    if task["name"] == "timing":
        data["backend"] = draw(st.sampled_from(["inline", "sim", {"name": "process", "device": "emulated"}]))
        if "step_s" in compute:
            compute["step_s"] = task["step_s"]
    else:
        data |= draw(mapping(None, {"backend": backends}))
        data |= draw(
            mapping(None, {"evaluate": mapping(None, every_minibatches=counts) | mapping(None, every_steps=counts)})
        )
    if algorithm["name"] == "hogwild":
        data["backend"] = draw(st.sampled_from(["inline", {"name": "process", "device": "emulated"}]))
    if algorithm["name"] not in ("asgd", "downpour", "sgd"):
        hardware.get("server", {}).pop("independent", None)
    backend = data.get("backend", "process")
    real = "process" in (backend, backend["name"] if isinstance(backend, dict) else "")
    if real and isinstance(backend, dict) and backend.get("device", "cpu") != "cpu":
        hardware.get("server", {}).pop("independent", None)
    if real and not hardware.get("server", {}).get("independent") and draw(st.booleans()):
        data["faults"] = draw(faults(data.get("workers", 1), simulated=False))
    if backend == "sim":
        data["backend"] = draw(
            mapping(None, {"numerics": st.sampled_from(["sequential", "batched", "auto"])}, name=st.just("sim"))
        )
        if draw(st.booleans()):
            data["faults"] = draw(faults(data.get("workers", 1), simulated=True))
    is_emulated = isinstance(backend, dict) and backend.get("device") == "emulated"
    data["hardware"] = (emulatable(hardware) if is_emulated else hardware) | {"compute": compute}
    if "inline" in (backend, backend["name"] if isinstance(backend, dict) else ""):  # it has no clock
        data.pop("evaluate", None)
        data["budget"] = {"minibatches": draw(counts)}
    if task["name"] == "classification" and draw(st.booleans()):
        data["budget"] = data["budget"] | {"target_error": draw(shares)}
    starts = mapping(None, minibatches=counts) | mapping(None, run=texts) | st.none()
    sweeps = st.fixed_dictionaries(
        {}, optional={"seed": st.just([0, 1, 2]), "algorithm.n_sync": st.lists(counts, min_size=1, unique=True)}
    )
    data |= draw(
        mapping(
            None,
            {
                "description": st.text(max_size=40) | words,
                "seed": st.integers(0, 2**63 - 1),
                "warm_start": starts,
                "record": st.sampled_from(["all", "sampled", "summary"]),
                "sweep": sweeps,
            },
        )
    )
    return data
