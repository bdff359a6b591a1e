// The module of a component's page.
import { keepCharts } from "./charts.js";
import { keepLog } from "./component_log.js";
import { offerTry } from "./try.js";

keepCharts();
keepLog();
offerTry();
