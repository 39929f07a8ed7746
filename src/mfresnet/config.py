"""The configuration of a run: one typed tree, every value with its range and its meaning.

A value is set by a flag (``--model.depth 64``), by a TOML file (``[model] depth = 64``) or in Python
(``Config(model={"depth": 64})``). The complete tree is written to ``config.json`` of every run.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from .errors import MfresnetError, unknown_name
from .fields import WholeNumbers, allowed, choices_of, item_of, shorten, split_lists


class Section(BaseModel):
    """Base of every part of a tree: no unknown names, no change after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    command: ClassVar[str] = "train"  # whose --help lists the tree's names

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: Any) -> Any:
        return split_lists(values, cls.model_fields) if isinstance(values, Mapping) else values


class DataConfig(Section):
    """Where the data comes from and how it reaches the sphere."""

    name: str = Field(
        default="two-spirals", description="a data set's name (`mfresnet datasets`) or the path of a file"
    )
    n: int | None = Field(
        default=None,
        ge=2,
        le=10**15,
        description="training points (default: 512 for generated sets, the whole training part for real ones)",
    )
    n_test: int | None = Field(
        default=None,
        ge=1,
        le=10**15,
        description="test points (default: 1024 for generated sets, a quarter of the rows for real ones)",
    )
    transform: Literal["auto", "sphere", "lift", "max", "none"] = Field(
        default="auto",
        description="how inputs reach the unit ball: sphere x/|x|, lift (x,1)/|(x,1)|, max x/max|x| (each after "
        "standardising real data), none; auto is the data set's own",
    )
    map_share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of the training points that fix the transform's means, deviations and largest norm; "
        "below 1, certificates are on the others (default: 1; 0.05 for train.rule langevin)",
    )
    noise: float | None = Field(
        default=None, ge=0, le=1e6, description="noise of the generated inputs (default: the data set's own)"
    )
    label_noise: float = Field(
        default=0.0, ge=0, le=0.5, description="share of training and test labels flipped at random"
    )
    turns: float = Field(default=1.0, gt=0, le=20, description="turns of each arm (two-spirals)")
    dimension: int = Field(default=10, ge=2, le=100_000, description="input dimension (sphere-teacher, random-labels)")
    target: str | None = Field(default=None, description="column (CSV, Parquet) or array (NPZ) that holds the target")
    labels: str | None = Field(default=None, description="NPY file of the targets, beside an NPY file of the inputs")
    task: Literal["auto", "classification", "regression"] = Field(
        default="auto", description="what the target of a user's file means"
    )
    categories: Literal["refuse", "one-hot"] = Field(
        default="refuse",
        description="text in features of a user's file; one-hot: a column of 0 and 1 for each value among the rows "
        "that fix the map of the inputs, all 0 for others",
    )
    missing: Literal["refuse", "mean", "drop"] = Field(
        default="refuse",
        description="missing values of a user's file; mean: the column's mean over the rows that fix the map of the "
        "inputs; drop: rows with one are dropped",
    )


class InitialScaleConfig(Section):
    """Standard deviations of the initial Gaussian laws, one per group of parameters."""

    u: float = Field(default=1.0, ge=0, le=1e3, description="encoder output weights u")
    w: float = Field(default=1.0, ge=0, le=1e3, description="encoder input weights w")
    b: float = Field(default=1.0, ge=0, le=1e3, description="encoder bias b")
    a: float = Field(default=1.0, ge=0, le=1e3, description="head output weights a")
    head_w: float = Field(default=1.0, ge=0, le=1e3, description="head input weights w")
    head_b: float = Field(default=1.0, ge=0, le=1e3, description="head bias b")
    law: str = Field(default="gaussian", description="gaussian (KL and its certificates need it), uniform, or your own")


class ModelConfig(Section):
    """The scaled ResNet."""

    kind: Literal["layered", "continuous"] = Field(
        default="layered",
        description="layers of particles, or ([L20]) depth x width particles that each have a trained place on one "
        "depth axis",
    )
    depth: int = Field(default=10, ge=1, le=1_000_000, description="layers L")
    width: int = Field(default=20, ge=1, le=1_000_000, description="encoder particles M of each layer")
    head_width: int = Field(default=20, ge=1, le=10_000_000, description="head particles K")
    alpha: float | None = Field(
        default=None,
        ge=0,
        le=1e6,
        description="scale of the residual branch (default: 10; 40/d for train.rule langevin in d dimensions)",
    )
    beta: float | None = Field(
        default=None, gt=0, le=1e6, description="scale of the output (default: 20; 120 for train.rule langevin)"
    )
    activation: str = Field(default="tanh", description="sigma0: a name, or package.module:ATTRIBUTE for your own")
    particle: str = Field(
        default="two-layer",
        description="residual block sigma(z, theta): two-layer ([C24]), gated, attention, convolution, or "
        "package.module:FACTORY for your own",
    )
    head_particle: str = Field(default="two-layer", description="block of the head, one of the same names")
    bias: bool = Field(default=True, description="particles carry a bias")
    head: bool = Field(
        default=True, description="a trained head reads the last state (without: the state is the output)"
    )
    embedding: Literal["none", "fixed", "trained"] = Field(
        default="none", description="linear map of the input into the state"
    )
    embedding_dimension: int | None = Field(
        default=None, ge=1, le=1_000_000, description="dimension D of the state, with an embedding"
    )
    shared: bool = Field(default=False, description="one encoder law for every depth")
    scheme: str = Field(
        default="euler", description="depth step: euler (the ResNet), midpoint, rk4, or a package's own"
    )
    antithetic: bool = Field(
        default=False, description="start with particles in pairs of opposite output: f = 0 and z = x, as in the limit"
    )
    initial: InitialScaleConfig = Field(default_factory=InitialScaleConfig, description="initial standard deviations")

    def state_dimension(self, inputs: int) -> int:
        """D, of the state: that of the embedding, or of the inputs."""
        return inputs if self.embedding == "none" else (self.embedding_dimension or inputs)


RULES = ("gradient-flow", "langevin", "sgd", "momentum", "adam")


class TrainConfig(Section):
    """How the laws are moved."""

    rule: str = Field(
        default="gradient-flow",
        pattern=rf"^({'|'.join(RULES)}|optax:[a-z_0-9]+)$",
        json_schema_extra={"choices": [*RULES, "optax:NAME"]},
        description="gradient-flow (Wasserstein); langevin, annealed and adjusted chains whose network is certified on "
        "all points; or an optimiser, mean-field scaled: sgd, momentum, adam, optax:NAME",
    )
    loss: str = Field(default="squared", description="squared (the theory's), logistic / cross-entropy, or your own")
    steps: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="optimiser steps (default 1000), of langevin (8000), or recorded steps of the flow (default 200; "
        "fixed-step: 2000)",
    )
    batch_size: int | None = Field(default=None, ge=1, le=10**15, description="points of a mini-batch (default: all)")
    leaps: int = Field(default=1, ge=1, le=1000, description="gradients of a step of langevin; several are Hamiltonian")
    gamma: float | None = Field(
        default=None, gt=0, le=1e9, description="last inverse temperature of langevin (default: pilot chains choose it)"
    )
    kernel: Literal["adjusted", "unadjusted", "minibatch"] = Field(
        default="adjusted",
        description="steps of langevin: adjusted by acceptance; unadjusted, whose certificate pays for the steps' "
        "error; minibatch, unadjusted with batch_size points, which pays for the gradients' noise as well",
    )
    potential: Literal["bounded", "loss"] = Field(
        default="bounded", description="what langevin lowers: bounded, mean sigmoid(-y f), or the loss"
    )
    chains: int = Field(default=1, ge=1, le=100_000, description="chains of langevin; the first is the trained network")
    freeze: Literal["none", "encoder", "head"] = Field(default="none", description="part that is not trained")
    encoder_rate: float = Field(default=1.0, ge=0, le=1e6, description="learning-rate factor of the encoder")
    head_rate: float = Field(default=1.0, ge=0, le=1e6, description="learning-rate factor of the head")
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="of the optimisers (default 0.01); sgd (0.5) and momentum (0.05) in units of training time",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of the preset momentum")
    decay: Literal["none", "linear", "cosine"] = Field(
        default="none", description="how the optimisers' learning rate falls to 0 over the steps"
    )
    solver: str = Field(
        default="stabilised",
        description="of the flow: stabilised or adaptive (error-controlled), heun or euler (fixed steps of length "
        "time/steps), or another error-controlled one, such as diffrax:Tsit5",
    )
    time: float = Field(default=1000.0, gt=0, le=1e12, description="horizon of the flow, in time_unit")
    time_unit: Literal["1/beta2", "n/beta2", "plain"] = Field(
        default="1/beta2", description="unit of training time: 1/beta^2, n/beta^2 or 1"
    )
    tolerance: float = Field(
        default=1e-6,
        gt=0,
        lt=1,
        description="relative and absolute tolerance of an error-controlled solver",
    )
    probes: int = Field(default=32, ge=0, le=1_000_000, description="probe particles of each layer (gradient flow)")
    head_probes: int = Field(
        default=512, ge=0, le=10_000_000, description="probe particles of the head (gradient flow)"
    )
    recompute: Literal["auto", "none", "segments"] = Field(
        default="auto", description="recompute states in segments of depth instead of storing them"
    )
    precision: Literal["float32", "float64", "bfloat16"] = Field(default="float32", description="of training")


class RecordConfig(Section):
    """What is written while training, and when."""

    metrics_every: int | None = Field(
        default=None, ge=1, le=100_000_000, description="steps between metrics (default: about 100 rows)"
    )
    checkpoint_seconds: float = Field(default=15.0, ge=0, le=86_400, description="seconds between checkpoints")
    snapshots: int = Field(default=16, ge=1, le=1000, description="checkpoints kept for measuring afterwards")
    report: bool = Field(default=True, description="write report.html at the end")


class DiagnosticsConfig(Section):
    """What is measured while training."""

    gram_every: int | None = Field(
        default=None,
        ge=0,
        le=100_000_000,
        description="steps between Gram matrices (default: at the kept checkpoints; 0: never)",
    )
    gram_points: int = Field(
        default=512,
        ge=2,
        le=20_000,
        description="training points of the Gram matrices, divided by the number of outputs",
    )
    kl_every: int | None = Field(
        default=None,
        ge=0,
        le=100_000_000,
        description="steps between KL and displacement (default: every metrics row; 0: never)",
    )
    also: tuple[str, ...] = Field(
        default=(), description="diagnostics taken beside the Gram matrices: transport, or a package's own"
    )
    landscape: bool = Field(default=True, description="landscape check and first-order paths at the end")
    solver_error: bool = Field(
        default=True, description="solve the flow again, more coarsely, to estimate the solver's error at the end"
    )
    control: bool = Field(default=False, description="also train with a frozen encoder: does the encoder matter?")


TUNED = r"^$|^ *[a-z._-]+=[0-9.e+,-]+( +[a-z._-]+=[0-9.e+,-]+)* *$"


class CertifyConfig(Section):
    """The certificates of a run, and the grid they are minimised over."""

    enabled: bool = Field(
        default=True, description="certify at the end of training (classification by a gradient flow)"
    )
    delta: float = Field(default=0.05, gt=0, lt=1, description="probability with which a certificate may fail")
    heads: WholeNumbers = Field(
        default=(8, 16, 32, 64, 128, 256), description="head particles k' of a sub-network that are tried"
    )
    residuals: WholeNumbers = Field(
        default=(5, 10, 20, 40), description="residual particles N' of a sub-network that are tried"
    )
    draws: int = Field(default=64, ge=1, le=100_000, description="sub-networks drawn at the chosen sizes")
    prior_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the training points that also trains a prior; the bound is on the rest",
    )
    prior_steps: int = Field(default=50, ge=1, le=100_000, description="Euler steps of the training of that prior")
    settings: int = Field(
        default=1, ge=1, le=10**9, description="configurations tried on these training points, this one included"
    )
    tune: str = Field(
        default="",
        pattern=TUNED,
        json_schema_extra={"allowed": "settings with their values, such as 'model.alpha=1,2,4 model.beta=4,8'"},
        description="settings chosen by the certificate on the training points before the run, each tried one counted",
    )
    patience: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="stop after this many recorded times without a better certificate (0: never)",
    )


class Config(Section):
    """The complete configuration of a training run.

    >>> config = Config(model={"depth": 64})
    >>> config.model.depth, config.train.rule
    (64, 'gradient-flow')
    """

    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="of the data split, the start and the batches")
    data: DataConfig = Field(default_factory=DataConfig, description="data")
    model: ModelConfig = Field(default_factory=ModelConfig, description="model")
    train: TrainConfig = Field(default_factory=TrainConfig, description="training")
    record: RecordConfig = Field(default_factory=RecordConfig, description="recording")
    diagnostics: DiagnosticsConfig = Field(default_factory=DiagnosticsConfig, description="diagnostics")
    certify: CertifyConfig = Field(default_factory=CertifyConfig, description="certificates")

    if TYPE_CHECKING:  # a section may be given as a dictionary, which Pydantic's own signature leaves out

        def __init__(self, *, seed: int = 0, **sections: Section | Mapping[str, Any]) -> None: ...


def leaves(section: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every value of the tree as (dotted name, field), sections in order."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from leaves(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``{"model.depth": 3}`` as ``{"model": {"depth": 3}}``."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``over`` written over it, section by section."""
    out = dict(base)
    for name, value in over.items():
        old = out.get(name)
        out[name] = merge(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return out


Tree = TypeVar("Tree", bound=Section)


def build(tree: Mapping[str, Any], kind: type[Tree] = Config) -> Tree:
    """The validated configuration of a kind, or one sentence naming the value, and what is allowed.

    >>> build({"model": {"depth": 0}})
    Traceback (most recent call last):
    mfresnet.errors.MfresnetError: model.depth = 0 is not allowed: give a whole number >= 1 and <= 1000000.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise MfresnetError(explain(error, kind)) from error


def explain(error: ValidationError, kind: type[Section] = Config) -> str:
    """The first fault of a validation error as one sentence."""
    fault = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in fault["loc"])
    fields = dict(leaves(kind))
    if fault["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, [*fields, *kind.model_fields], n=2, cutoff=0.6)
        hint = (
            f"did you mean {' or '.join(close)}?" if close else f"see `mfresnet {kind.command} --help` for the names."
        )
        return f"unknown setting {name!r}: {hint}"
    name = ".".join(str(part) for part in fault["loc"] if not isinstance(part, int))  # of several values: theirs
    value = shorten(fault["input"])
    if name not in fields:
        return f"{name or 'the configuration'} = {value} is not allowed: give a table of settings."
    if fault["type"] == "too_short":
        return f"{name} is empty: give {allowed(fields[name])}."
    choices = choices_of(fields[name])
    one_of_several = fault["type"] == "literal_error" and item_of(fields[name]) is not None
    if choices and isinstance(fault["input"], str) and (one_of_several or fault["type"] == "string_pattern_mismatch"):
        return str(unknown_name(name, fault["input"], choices))
    return f"{name} = {value} is not allowed: give {allowed(fields[name])}."
