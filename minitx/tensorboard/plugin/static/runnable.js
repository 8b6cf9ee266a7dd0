// The entry of a page that runs its model.

import { modelSource } from "./data/model_source.js";
import { startFilePage } from "./frame/file_page.js";

const source = startFilePage(modelSource);
if (source) window.minitx = source.inside;
