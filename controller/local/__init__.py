"""One run of a pipeline without the platform: `prichal run-local`.

`run` controls the whole run: it uses the daemon's runner with a separate store, in a temporary folder
(`workspace`). `manifest` reads the manifests, `inputs` what a person passes; `outputs` copies the outputs, and
`console` shows the progress.
"""
