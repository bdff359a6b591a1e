"""Runs a pipeline or serves a component without the platform: `prichal run-local`, `prichal serve-local`.

`run` controls the whole run: it uses the daemon's runner with a separate store, in a temporary folder
(`workspace`). `manifest` reads the manifests, `inputs` what a person passes; `outputs` copies the outputs, and
`console` shows the progress.
"""
