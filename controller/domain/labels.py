"""Every label key that prichal writes on Docker objects. What lacks `INSTANCE` with our value is never touched."""

INSTANCE = "io.prichal.instance"
APP = "io.prichal.app"
COMPONENT = "io.prichal.component"
KIND = "io.prichal.kind"
FINGERPRINT = "io.prichal.fingerprint"
REVISION = "io.prichal.revision"
REPLICA = "io.prichal.replica"
PORT = "io.prichal.port"
GPUS = "io.prichal.gpus"
RUN = "io.prichal.run"
STAGE = "io.prichal.stage"
ATTEMPT = "io.prichal.attempt"
#: Of components that do not say whether they write to their root file system: `read-only`, or `writable` after they
#: did not start with that.
ROOT = "io.prichal.root"

#: On images. Not `INSTANCE`: a container that a person starts from the image inherits its labels, and is not ours.
BUILT_BY = "io.prichal.built-by"
#: On containers that set the firewall, which are removed as soon as they have ended.
FIREWALL = "io.prichal.firewall"
