"""One run of a pipeline without the platform: `prichal run-local`.

`life` is the whole of it: the runner of the daemon with a store of its own, in a folder that is gone afterwards
(`workplace`). What the manifests say is read by `manifest`, what a person passes by `given`, what comes out is taken
along by `results`, and `view` tells how it goes.
"""
