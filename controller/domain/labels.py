"""Every label key that prichal writes on Docker objects. What lacks `INSTANCE` with our value is never touched."""

INSTANCE = "io.prichal.instance"
APP = "io.prichal.app"
COMPONENT = "io.prichal.component"
KIND = "io.prichal.kind"
FINGERPRINT = "io.prichal.fingerprint"
REVISION = "io.prichal.revision"
REPLICA = "io.prichal.replica"
PORT = "io.prichal.port"
RUN = "io.prichal.run"
STAGE = "io.prichal.stage"
ATTEMPT = "io.prichal.attempt"

#: On images. Not `INSTANCE`: a container that a person starts from the image inherits its labels, and is not ours.
BUILT_BY = "io.prichal.built-by"
