"""The serving library: makes a web service of one inference function.

The folder of this package is mounted read-only into a component's container as
``/opt/prichal/prichal_serving`` and is run in place of the image's command. It needs Python 3.9 or newer and
nothing else: standard library only, relative imports only, and it imports nothing of the rest of the
platform. The platform's own Python imports the same code as ``controller.serving`` for its pure parts:
``docstring`` (text -> Signature), ``validate`` (request -> problems) and ``openapi`` (Signature -> OpenAPI
3.1).

Without the platform, any image with Python serves its function with one command, run next to this folder's
parent::

    docker run --rm -p 8002:8002 -e PYTHONPATH=/opt/prichal \\
        -v "$PWD/controller/serving:/opt/prichal/prichal_serving:ro" \\
        --entrypoint python3 IMAGE -m prichal_serving --inference app.inference:predict

``--help`` lists the options; the platform itself hands over one JSON object in the variable
``PRICHAL_SERVING`` (see ``config``).

The flow: ``__main__`` reads the settings and starts the ``supervisor``, which binds the port, forks the
``worker`` and watches it. The worker loads the developer's code (``loading``) and accepts connections itself:
one thread a connection (``connection``), a strict HTTP/1.1 reader (``http1``), ``routes``, and then
``predict`` -> ``limiter`` (slots, queue, deadlines) -> the function, on that same thread, which sends what the
function yields (``streams``). While there is no
worker, ``unready`` answers on the supervisor's side. Several workers accept nothing: the supervisor's ``dispatcher``
hands them connections on which a request begins (``handover``). With ``preload`` they are forked by the ``forkserver``.
"""

from __future__ import annotations

VERSION = "1"
