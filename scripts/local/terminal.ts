/** Colours where a terminal shows them. */
import { styleText } from "node:util";

const isPlain = !process.stdout.isTTY || process.env.NO_COLOR !== undefined;
const style = (format: Parameters<typeof styleText>[0]) => (text: string) => (isPlain ? text : styleText(format, text));

export const dim = style("dim");
export const bold = style("bold");
export const green = style("green");
export const yellow = style("yellow");
export const red = style("red");
export const cyan = style("cyan");
