"""What to do about each reason that a condition or a run may have, for the person who looks at a page.

docs/reference/status.md and runs.md say more. `tests/unit/web/pages/test_advice.py` finds reasons that those pages have
something to do about, and this table has not. The texts are translated where they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from controller.domain.reasons import Reason
from controller.web.pages.languages import N_

_REASONS: Final[Mapping[str, tuple[Reason, ...]]] = {
    # Components
    N_("The other lines say why."): (
        Reason.NOT_SERVING,
        Reason.NOT_MADE,
    ),
    N_("The missing replicas are being started. If it stays so, read the component's log."): (
        Reason.REPLICAS_MISSING,
    ),
    N_("Read its log: the usual cause is a call that never returns."): (Reason.NOT_ANSWERING,),
    N_("Fix what the message says and push, or reconcile to try it again."): (Reason.FAILED,),
    N_("Read its log."): (Reason.BACKOFF,),
    N_("Fix it and push, or reconcile."): (Reason.CRASH_LOOP,),
    N_("Fix what its last lines say."): (
        Reason.EXITED,
        Reason.BUILD_FAILED,
    ),
    N_("Write below /tmp, or set readOnlyRootFilesystem: false."): (Reason.ROOT_NOT_WRITABLE,),
    N_("Load less, or raise setupTimeout."): (Reason.NOT_READY,),
    N_("Fix what it says, or the files of the smoke test."): (
        Reason.SMOKE_TEST_FAILED,
        Reason.SMOKE_TEST_INVALID,
    ),
    N_("It goes on by itself; there is nothing to do."): (
        Reason.COPYING_BOX,
        Reason.AWAITING_BOX,
        Reason.CONTAINER_LOST,
        Reason.MODEL_CHANGED,
        Reason.SUPERSEDED,
        Reason.IMAGE_GONE,
        Reason.NETWORK_GONE,
        Reason.MOUNT_GONE,
        Reason.WORKLOAD_GONE,
        Reason.ENGINE_OBJECT_GONE,
        Reason.NAME_BUSY,
        Reason.ENGINE_CONFLICT,
        Reason.CLONE_DAMAGED,
        Reason.REVISION_GONE,
        Reason.VERIFIER_TIMEOUT,
        Reason.IMAGES_STAY,
        Reason.STATE_BUSY,
        Reason.BRANCH_MOVED,
        Reason.ENGINE_RESTARTED,
    ),
    N_("Correct what the message names and push."): (
        Reason.START_REFUSED,
        Reason.SECRET_REFUSED,
        Reason.WORKDIR_INVALID,
        Reason.NO_COMMAND,
        Reason.ENGINE_REFUSED,
        Reason.REF_INVALID,
        Reason.URL_INVALID,
    ),
    N_("An administrator looks at the node."): (Reason.NODE_LOST,),
    N_("Correct the key or the value of the Secret that the message names."): (Reason.SECRET_INVALID,),
    N_("Set the Secret that the message names."): (Reason.SECRET_MISSING,),
    N_("Set the Secret on the page Secrets of this app; then it goes on by itself."): (
        Reason.AWAITING_SECRET,
    ),
    N_("Set the Secret again, or let an administrator restore the instance's key."): (
        Reason.SECRET_UNREADABLE,
    ),
    N_("Correct the Secret that lists who may call."): (Reason.CALLERS_INVALID,),
    N_("Add a user and a hash of a password."): (Reason.SECRET_EMPTY,),
    N_("Make the hash with: prichal password hash"): (Reason.PASSWORD_HASH_TOO_COSTLY,),
    N_("Run the pipeline that publishes the model, or upload it: the message has the commands."): (
        Reason.AWAITING_MODEL,
    ),
    N_("Upload the model into the developer area of the box."): (Reason.MODEL_MISSING,),
    N_("Rename the files in the box that the message names."): (
        Reason.MODEL_INVALID,
        Reason.INPUT_INVALID,
    ),
    N_("Wait while a run publishes the model. If none does, repeat the run that was to."): (
        Reason.MODEL_INCOMPLETE,
    ),
    N_("Reconcile to deploy the newer model."): (Reason.NEWER_MODEL_AVAILABLE,),
    # Apps
    N_("Read the message, and correct what it names."): (Reason.WARNINGS,),
    N_("Find out why the new one does not start."): (Reason.AWAITING_SUCCESSOR,),
    N_("Set prune: true in the PlatformApp to remove it."): (Reason.PRUNE_DISABLED,),
    N_("Look at the app or the component that this one depends on."): (Reason.DEPENDENCY_NOT_READY,),
    N_("Disconnect from the network what was connected by hand: docker network inspect shows it."): (
        Reason.NETWORK_IN_USE,
    ),
    N_("An administrator corrects the platform folder: prichal doctor"): (
        Reason.REPOSITORY_MISSING,
        Reason.PLATFORM_FOLDER_MISSING,
        Reason.PLATFORM_FOLDER_UNREADABLE,
    ),
    N_("If it is not a program of yours that does so, tell an administrator."): (Reason.RESTLESS,),
    N_("Tell an administrator, who reports it."): (
        Reason.INTERNAL_ERROR,
        Reason.ENGINE_MISUSED,
        Reason.COMMIT_UNREADABLE,
    ),
    # Boxes and the storage
    N_("Delete files, or raise the capacity of the box. Until then uploads are refused."): (
        Reason.OVER_CAPACITY,
    ),
    N_("Delete files, or declare a larger capacity."): (Reason.CAPACITY_BELOW_USE,),
    N_("Declare a larger capacity within the limits of previews, or let their boxes be empty."): (
        Reason.BOX_TOO_LARGE,
    ),
    N_("Components keep serving; an administrator looks at the storage."): (Reason.STORAGE_UNREACHABLE,),
    N_("An administrator corrects the storage of the platform: prichal doctor"): (
        Reason.STORAGE_PROGRAM_MISSING,
        Reason.LINKS_NOT_SERVED,
        Reason.STORAGE_DENIED,
        Reason.STORAGE_CREDENTIALS,
        Reason.STORAGE_REFUSED,
        Reason.BUCKET_MISSING,
    ),
    N_("Delete files, or tell an administrator."): (
        Reason.STORAGE_FULL,
        Reason.SCRATCH_FULL,
    ),
    N_("Remove the boxes from the manifests, or ask an administrator."): (Reason.STORAGE_DISABLED,),
    N_("Ask for it again."): (
        Reason.OBJECT_MISSING,
        Reason.OBJECT_CHANGED,
    ),
    N_("Start the upload again, or send the parts that are missing."): (
        Reason.UPLOAD_MISSING,
        Reason.UPLOAD_INCOMPLETE,
    ),
    # Runs
    N_("Upload the file, and start a new run."): (Reason.INPUT_MISSING,),
    N_("Repeat the run."): (Reason.INPUT_CHANGED,),
    N_("Wait until some runs have begun, or cancel some."): (Reason.QUEUE_FULL,),
    N_("Tell an administrator, who repairs the repository."): (Reason.REPOSITORY_DAMAGED,),
    N_("Tell an administrator."): (
        Reason.PATH_REFUSED,
        Reason.STATE_SET_ASIDE,
        Reason.DISK_FULL,
        Reason.STATE_DISK_FULL,
        Reason.STATE_IO_ERROR,
    ),
    N_("Let the stage write files into the folder of each of its outputs."): (Reason.OUTPUT_MISSING,),
    N_("Let the stage write plain files, with names that the box takes."): (Reason.OUTPUT_INVALID,),
    N_("Choose another key."): (Reason.IDEMPOTENCY_CONFLICT,),
    N_("It is tried again by itself."): (
        Reason.WEBHOOK_UNREACHABLE,
        Reason.REGISTRY_UNREACHABLE,
        Reason.PULL_TIMEOUT,
        Reason.REGISTRY_LIMITED,
        Reason.PUSH_FAILED,
        Reason.FETCH_FAILED,
        Reason.FETCH_TIMEOUT,
    ),
    N_("Give the webhook an address that the platform may reach."): (Reason.WEBHOOK_ADDRESS_REFUSED,),
    N_("Correct the Secret of the webhook: the next attempt uses it."): (Reason.WEBHOOK_SECRET_INVALID,),
    # Images and Docker
    N_("Push the image to its registry, or correct its name."): (Reason.IMAGE_NOT_FOUND,),
    N_("Write the name of the image as docker pull takes it."): (
        Reason.INVALID_REFERENCE,
        Reason.IMAGE_REFUSED,
    ),
    N_("Check the name of the image and the credentials of its registry."): (Reason.REGISTRY_DENIED,),
    N_("Check the name of the image, and the credentials under registries of the PlatformApp."): (
        Reason.REGISTRY_CREDENTIALS,
    ),
    N_("Change the Dockerfile: the message names the place."): (Reason.BUILD_REFUSED,),
    N_("Use smaller images, or fewer of them."): (Reason.IMAGE_TOO_LARGE,),
    N_("Make the build shorter."): (Reason.BUILD_TIMEOUT,),
    N_("Let the steps of the Dockerfile write less."): (Reason.BUILD_TOO_LARGE,),
    N_("Ask the operator: the limits of builds cannot be set on this host."): (Reason.BUILD_UNLIMITED,),
    N_("Install Python 3.9 or newer in the image, or bring a server of your own."): (Reason.NO_PYTHON,),
    N_("An administrator adds the certificate of the registry to the engine."): (Reason.REGISTRY_UNTRUSTED,),
    N_("Check the name of the image and the rule by which it is followed."): (
        Reason.NO_MATCHING_TAG,
        Reason.REGISTRY_ANSWER_INVALID,
    ),
    N_("An administrator names the registry in registries of the PlatformApp."): (
        Reason.REGISTRY_ADDRESS_REFUSED,
    ),
    N_("Push an image that the rule admits; then it goes on by itself."): (Reason.AWAITING_IMAGE,),
    N_("Give the credentials of the repository the right to push, or leave out writeBack."): (
        Reason.IMAGE_WRITE_FAILED,
    ),
    N_("Build the image for the processor of this platform."): (Reason.IMAGE_UNUSABLE,),
    N_("Make the command executable in the Dockerfile: RUN chmod +x"): (Reason.COMMAND_DENIED,),
    N_("Add the user in the Dockerfile, or write a number."): (Reason.USER_NOT_FOUND,),
    N_("Correct env, envFrom or the Secret."): (Reason.ENVIRONMENT_INVALID,),
    N_("Choose another path to mount at."): (
        Reason.MOUNT_INVALID,
        Reason.MOUNT_MISMATCH,
    ),
    N_("An administrator stops the other program, or changes the port."): (Reason.PORT_TAKEN,),
    N_("Correct the command, or the image."): (Reason.COMMAND_NOT_FOUND,),
    N_("Ask for less."): (
        Reason.LIMITS_INVALID,
        Reason.NO_GPU,
    ),
    N_("It starts when one is free."): (Reason.WAITING_FOR_GPU,),
    N_("An administrator removes or renames it."): (
        Reason.NAME_TAKEN,
        Reason.NOT_OURS,
    ),
    N_("It is tried again by itself; an administrator looks at the engine: prichal doctor"): (
        Reason.ADDRESSES_EXHAUSTED,
        Reason.ENGINE_DISK_FULL,
        Reason.ENGINE_UNREACHABLE,
        Reason.ENGINE_TIMEOUT,
        Reason.EGRESS_OPEN,
        Reason.ENGINE_FORBIDDEN,
        Reason.ENGINE_FAILED,
        Reason.ENGINE_TOO_OLD,
        Reason.ENGINE_CONFIG,
    ),
    # Git
    N_("Give other credentials."): (Reason.AUTHENTICATION_FAILED,),
    N_(
        "Compare the fingerprint of the server's key with the one that its operator tells you, and correct knownHosts."
    ): (
        Reason.HOST_KEY_UNKNOWN,
        Reason.HOST_KEY_MISMATCH,
        Reason.HOST_KEY_REVOKED,
    ),
    N_("An administrator looks at the certificate."): (Reason.CERTIFICATE_INVALID,),
    N_("Correct the address, or give credentials that may see it."): (Reason.REPOSITORY_NOT_FOUND,),
    N_("Correct the address of the repository."): (
        Reason.REPOSITORY_MOVED,
        Reason.NOT_A_GIT_SERVER,
    ),
    N_("An administrator allows this folder, or hosts the repository."): (Reason.PATH_NOT_ALLOWED,),
    N_("Push it, or correct the name."): (Reason.REF_NOT_FOUND,),
    N_("Push the first commit."): (Reason.REPOSITORY_EMPTY,),
    N_("Delete branches that nobody needs."): (Reason.TOO_MANY_REFS,),
    N_("Keep large files out of Git, in a box."): (Reason.REPOSITORY_TOO_LARGE,),
    N_("Sign the commit with a key that the Repository lists."): (Reason.SIGNATURE_INVALID,),
    N_("An administrator installs the program that checks signatures."): (Reason.VERIFIER_MISSING,),
    N_("Correct the path in the manifests."): (Reason.PATH_NOT_FOUND,),
    N_("Remove from the commit what the message names."): (
        Reason.LFS_POINTER,
        Reason.SYMLINK_REFUSED,
        Reason.TREE_INVALID,
        Reason.TREE_TOO_LARGE,
        Reason.FILE_TOO_LARGE,
        Reason.CONTEXT_TOO_LARGE,
        Reason.COMMIT_TOO_LARGE,
    ),
    # The state
    N_("The platform's own data needs an administrator: prichal doctor"): (
        Reason.STATE_UNWRITABLE,
        Reason.STATE_CORRUPT,
        Reason.ROW_UNREADABLE,
        Reason.STATE_TOO_NEW,
    ),
    # Only of runs
    N_("Read the log of the stage."): (Reason.EXIT_CODE,),
    N_("Raise resources.memory, or use less."): (Reason.OOM_KILLED,),
    N_("Raise the timeout, or make the stage faster."): (Reason.TIMEOUT,),
    N_("Push the image, and check the credentials of its registry."): (Reason.IMAGE_PULL,),
    N_("Ask for less, or wait."): (Reason.START_PENDING,),
    N_("Look at what the commit would change, and approve it if it is right."): (Reason.AWAITING_APPROVAL,),
    N_("Wait for the window, or approve the commit to apply it now."): (Reason.OUTSIDE_WINDOW,),
    N_("Ask the operator when commits may be applied again."): (Reason.FROZEN,),
}
#: It counts before the advice about a condition.
ADVICE_ABOUT: Final[Mapping[Reason, str]] = {
    reason: advice for advice, reasons in _REASONS.items() for reason in reasons
}
