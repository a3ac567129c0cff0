"""The only place the version is written: the build and the native code read it from here."""

__version__ = "0.2.0"
