/**
 * Loaded before a program, gives its process a wall clock that is wrong: by the milliseconds in the file `AAU_CLOCK_FILE`, read again at each
 * SIGUSR2, so that the clock may also jump while work runs. Timers and `performance` go on as they do on a machine whose clock is set.
 */
import { readFileSync } from "node:fs";

const Real = globalThis.Date;
let shiftMs = 0;

function read() {
  try {
    shiftMs = Number(readFileSync(process.env.AAU_CLOCK_FILE ?? "", "utf8"));
  } catch {
    shiftMs = 0;
  }
}

globalThis.Date = class ShiftedDate extends Real {
  constructor(...given) {
    if (given.length === 0) super(Real.now() + shiftMs);
    else super(...given);
  }

  static now() {
    return Real.now() + shiftMs;
  }
};
read();
process.on("SIGUSR2", read);
