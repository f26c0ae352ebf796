/**
 * Programs that run beside a test: started with their output kept, awaited, stopped by their own id.
 *
 * @module
 */

/** A program that is running. */
export interface Background {
  readonly pid: number;
  /** Lines of stdout and stderr so far. */
  readonly lines: string[];
  readonly exited: Promise<Deno.CommandStatus>;
  /** Whether it still runs. */
  running(): boolean;
  /** Resolves with the first line, from the beginning, that matches; throws when it exits or takes `ms` (10,000). */
  line(pattern: RegExp, ms?: number): Promise<string>;
  /** Sends a signal (SIGTERM), waits, and after `ms` (20,000) sends SIGKILL. Resolves with how it ended. */
  stop(signal?: Deno.Signal, ms?: number): Promise<Deno.CommandStatus>;
  /** The highest resident size it ever had, in bytes (Linux). */
  peakRss(): number;
}

/** Starts a program. */
export function background(
  command: string,
  options: { args?: string[]; env?: Record<string, string>; clearEnv?: boolean; cwd?: string } = {},
): Background {
  const child = new Deno.Command(command, {
    ...options,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const lines: string[] = [];
  const waiting = new Set<() => void>();
  let alive = true;
  const reading = Promise.all([child.stdout, child.stderr].map(async (stream) => {
    let rest = "";
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      const parts = (rest + text).split("\n");
      rest = parts.pop()!;
      lines.push(...parts);
      for (const wake of waiting) wake();
    }
    if (rest) lines.push(rest);
  }));
  const exited = child.status.then(async (status) => {
    alive = false;
    await reading;
    for (const wake of waiting) wake();
    return status;
  });

  return {
    pid: child.pid,
    lines,
    exited,
    running: () => alive,
    async line(pattern, ms = 10_000) {
      const until = performance.now() + ms;
      for (let at = 0;;) {
        for (; at < lines.length; at++) if (pattern.test(lines[at]!)) return lines[at]!;
        const left = until - performance.now();
        if (!alive || left <= 0) {
          const why = alive ? `no line in ${ms} ms` : "it exited";
          throw new Error(`No ${pattern} from ${command}: ${why}:\n${lines.slice(-30).join("\n")}`);
        }
        await new Promise<void>((resolve) => {
          const wake = () => {
            clearTimeout(timer);
            waiting.delete(wake);
            resolve();
          };
          const timer = setTimeout(wake, left);
          waiting.add(wake);
        });
      }
    },
    async stop(signal = "SIGTERM", ms = 20_000) {
      if (alive) child.kill(signal);
      const timer = setTimeout(() => {
        if (alive) child.kill("SIGKILL");
      }, ms);
      try {
        return await exited;
      } finally {
        clearTimeout(timer);
      }
    },
    peakRss() {
      const status = Deno.readTextFileSync(`/proc/${child.pid}/status`);
      return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? NaN) * 1024;
    },
  };
}

/** What a program left behind. */
export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. */
export async function run(
  command: string,
  args: string[] = [],
  options: { env?: Record<string, string>; clearEnv?: boolean; cwd?: string; stdin?: string } = {},
): Promise<Finished> {
  const { stdin, ...rest } = options;
  const child = new Deno.Command(command, {
    ...rest,
    args,
    stdin: stdin === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  if (stdin !== undefined) {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(stdin)).catch(() => {});
    await writer.close().catch(() => {});
  }
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

/** Runs a program that must succeed; its stdout. */
export async function must(
  command: string,
  args: string[] = [],
  options: Parameters<typeof run>[2] = {},
): Promise<string> {
  const { code, stdout, stderr } = await run(command, args, options);
  if (code !== 0) throw new Error(`${command} ${args.join(" ")}: exit ${code}\n${stdout}${stderr}`);
  return stdout;
}

/** Asks `url` until it answers with a status that `accept` likes (any), while the program runs. */
export async function answering(
  url: string,
  program: Pick<Background, "running" | "lines">,
  options: { accept?: (status: number) => boolean; ms?: number } = {},
): Promise<void> {
  const { accept = () => true, ms = 20_000 } = options;
  const until = performance.now() + ms;
  for (let last: unknown = "nothing";;) {
    try {
      const response = await fetch(url, { redirect: "manual", signal: AbortSignal.timeout(5000) });
      await response.body?.cancel();
      if (accept(response.status)) return;
      last = response.status;
    } catch (error) {
      last = error;
    }
    if (!program.running() || performance.now() > until) {
      throw new Error(`No answer from ${url}: ${last}:\n${program.lines.slice(-30).join("\n")}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
