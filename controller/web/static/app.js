// The module of an app's page: the log of its newest build, once somebody opens it.
import { keepLog } from "./component_log.js";

document.querySelector("[data-build-log]")?.addEventListener("toggle", keepLog, { once: true });
