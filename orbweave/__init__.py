"""What all parts of Orbweave share: errors, records, model references, files and paths."""

__all__ = ["__version__"]

__version__ = "0.1.0"
