"""The library as an application: run folders and stages, settings and presets, progress and advice."""
