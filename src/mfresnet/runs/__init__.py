"""Runs on disk: the only writer of files."""

from .certifying import certify, predict_certify, read_certificates
from .directory import RunDirectory, fresh_path
from .export import Tracker, export, track, tracker
from .image_training import resume_images, train_images
from .measuring import measure, predict_measure
from .training import resume, train

__all__ = [
    "RunDirectory",
    "Tracker",
    "certify",
    "export",
    "fresh_path",
    "measure",
    "predict_certify",
    "predict_measure",
    "read_certificates",
    "resume",
    "resume_images",
    "track",
    "tracker",
    "train",
    "train_images",
]
