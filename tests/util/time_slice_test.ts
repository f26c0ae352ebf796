import { assertGreater } from "@std/assert";
import { TimeSlice } from "../../lib/util/time_slice.ts";

/** How many turns others had during `work`. */
async function turnsDuring(work: () => Promise<unknown>): Promise<number> {
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  await work();
  clearInterval(timer);
  return turns;
}

Deno.test("others have their turn in the middle of work that awaits nothing", async () => {
  const turns = await turnsDuring(async () => {
    const slice = new TimeSlice();
    for (let i = 0; i < 20; i++) {
      for (const until = performance.now() + 6; performance.now() < until;);
      await slice.pause();
    }
  });
  assertGreater(turns, 5);
});
