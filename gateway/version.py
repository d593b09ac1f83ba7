"""The version of this source tree; the packages take it from here."""

VERSION = "0.1.0"
