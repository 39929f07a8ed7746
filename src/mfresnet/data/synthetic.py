"""Generated data sets: (x, y) of shapes (n, d) and (n, 1), drawn from a generator the caller owns."""

from __future__ import annotations

import numpy as np

DEPTH, WIDTH, ALPHA, SHIFT = 10, 500, 2.0, 2.0


def two_spirals(
    n: int, rng: np.random.Generator, noise: float = 0.0, turns: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Two interleaved Archimedean spirals, one per class (docs/theory.md, section 13).

    ``x = y t (cos 2 pi turns t, sin 2 pi turns t) + noise N(0, I)`` with t = sqrt(uniform), which is close to
    uniform along the arm, and labels y = -1, +1, -1, ... (balanced). Radius is proportional to angle.

    Args:
        n: points.
        rng: source of randomness.
        noise: standard deviation of the Gaussian added to x.
        turns: turns of each arm.

    Source: [C24], experiments; docs/theory.md, section 13.

    >>> x, y = two_spirals(4, np.random.default_rng(0))
    >>> x.shape, y.ravel().tolist()
    ((4, 2), [-1.0, 1.0, -1.0, 1.0])
    """
    y = _alternating(n)
    t = np.sqrt(rng.uniform(size=(n, 1)))
    angle = 2 * np.pi * turns * t
    x = y * t * np.hstack([np.cos(angle), np.sin(angle)])
    return x + noise * rng.standard_normal(x.shape), y


def circles(n: int, rng: np.random.Generator, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Two concentric circles: radius 1 (y = -1) and radius 1/2 (y = +1), balanced, plus ``noise N(0, I)``.

    Args:
        n: points.
        rng: source of randomness.
        noise: standard deviation of the Gaussian added to x.

    >>> x, y = circles(4, np.random.default_rng(0), noise=0.0)
    >>> np.round(np.linalg.norm(x, axis=1), 12).tolist()
    [1.0, 0.5, 1.0, 0.5]
    """
    y = _alternating(n)
    angle = 2 * np.pi * rng.uniform(size=(n, 1))
    x = (0.75 - 0.25 * y) * np.hstack([np.cos(angle), np.sin(angle)])
    return x + noise * rng.standard_normal(x.shape), y


def sphere_teacher(
    n: int, rng: np.random.Generator, dimension: int = 10, teacher_seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Uniform points on the sphere with the outputs of a hidden mean-field network: a regression that can be learnt.

    ``y = tanh((g(x) - m)/s)``, g from `teacher_outputs`, m and s its mean and standard deviation over 1024 points
    of the sphere that belong to the teacher, so that |y| <= 1 and the whole range is used.

    Args:
        n: points.
        rng: source of randomness of the points.
        dimension: d.
        teacher_seed: the teacher; the same seed is the same function of x whatever n is.

    Source: the teacher laws tau_y, nu_y of [C24].

    >>> x, y = sphere_teacher(3, np.random.default_rng(0), dimension=4)
    >>> np.allclose(np.linalg.norm(x, axis=1), 1.0), bool(np.all(np.abs(y) <= 1))
    (True, True)
    """
    x = _on_sphere(n, dimension, rng)
    reference = _on_sphere(1024, dimension, np.random.default_rng([teacher_seed, 1]))
    outputs = teacher_outputs(reference, teacher_seed)
    return x, np.tanh((teacher_outputs(x, teacher_seed) - outputs.mean()) / outputs.std())


def random_labels(n: int, rng: np.random.Generator, dimension: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Uniform points on the sphere with labels -1 and +1 drawn at random: nothing to learn, all to remember.

    Args:
        n: points.
        rng: source of randomness.
        dimension: d.

    >>> x, y = random_labels(3, np.random.default_rng(0), dimension=4)
    >>> np.allclose(np.linalg.norm(x, axis=1), 1.0), np.abs(y).ravel().tolist()
    (True, [1.0, 1.0, 1.0])
    """
    x = _on_sphere(n, dimension, rng)
    return x, np.sign(rng.standard_normal((n, 1)))


def teacher_outputs(x: np.ndarray, seed: int, block: int = 4096) -> np.ndarray:
    """Outputs g(x), shape (n, 1), of a finite network with laws away from the start (docs/theory.md, section 1).

        z_{l+1} = z_l + ALPHA/(DEPTH WIDTH) sum_m u_m tanh(w_m.z_l + b_m),     g = 1/WIDTH sum_k a_k tanh(w_k.z + b_k)

    At every depth u ~ N(p, I), w ~ N(SHIFT q, I), b ~ N(0, 1) with p, q random unit vectors of that depth; in the
    head a ~ N(1, 1). So KL(nu_y || nu_0) and KL(tau_y || tau_0) are both (1 + SHIFT^2)/2, whatever the dimension.
    Particles are drawn one layer at a time and rows taken in blocks, so memory stays small.

    >>> teacher_outputs(np.eye(3), seed=0).shape
    (3, 1)
    """
    d = x.shape[1]
    z = np.array(x, dtype=np.float64)
    parts = [slice(start, start + block) for start in range(0, len(z), block)]
    for layer in range(DEPTH):
        rng = np.random.default_rng([seed, 2, layer])
        u = _on_sphere(1, d, rng) + rng.standard_normal((WIDTH, d))
        w, b = SHIFT * _on_sphere(1, d, rng) + rng.standard_normal((WIDTH, d)), rng.standard_normal(WIDTH)
        for part in parts:
            z[part] += ALPHA / (DEPTH * WIDTH) * np.tanh(z[part] @ w.T + b) @ u
    rng = np.random.default_rng([seed, 3])
    a = 1 + rng.standard_normal((WIDTH, 1))
    w, b = SHIFT * _on_sphere(1, d, rng) + rng.standard_normal((WIDTH, d)), rng.standard_normal(WIDTH)
    return np.concatenate([np.tanh(z[part] @ w.T + b) @ a / WIDTH for part in parts])


def _alternating(n: int) -> np.ndarray:
    return np.where(np.arange(n) % 2, 1.0, -1.0)[:, None]


def _on_sphere(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)
