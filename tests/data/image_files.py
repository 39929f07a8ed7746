"""Encoded images and tables of them, and how often a property is tried."""

import io

import numpy as np
import polars as pl
from hypothesis import HealthCheck, settings
from PIL import Image

TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def silent(line):
    pass


def png(array, mode=None, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8), mode).save(buffer, kind, **options)
    return buffer.getvalue()


def colours(n, size=(4, 5), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *size, 3)).astype(np.uint8)


def parquet(file, images, labels, **columns):
    pl.DataFrame({"img": [{"bytes": b, "path": None} for b in images], "label": labels, **columns}).write_parquet(file)
    return str(file)


GOOD = [png(a) for a in colours(8)]
LABELS = [0, 1] * 4
