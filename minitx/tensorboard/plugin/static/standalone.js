// The entry of a page of snapshots.

import { fileSource } from "./data/source.js";
import { startFilePage } from "./frame/file_page.js";

startFilePage(fileSource);
