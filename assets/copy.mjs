// Copies the minified files of the npm packages into the console's static folder, with their licences.
import { copyFileSync, mkdirSync, rmSync } from "node:fs";

const here = new URL("./node_modules/", import.meta.url);
const vendor = new URL("../src/entrepot/console/static/vendor/", import.meta.url);

const files = {
  "uPlot.iife.min.js": "uplot/dist/uPlot.iife.min.js",
  "uPlot.min.css": "uplot/dist/uPlot.min.css",
  "uPlot.LICENSE": "uplot/LICENSE",
};

rmSync(vendor, { recursive: true, force: true });
mkdirSync(vendor, { recursive: true });
for (const [name, source] of Object.entries(files)) copyFileSync(new URL(source, here), new URL(name, vendor));
console.log(`${Object.keys(files).length} files in src/entrepot/console/static/vendor`);
