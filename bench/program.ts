/**
 * A server under measurement: a program whose output goes nowhere, and what the system says of its use.
 *
 * @module
 */

/** A running program. */
export interface Program {
  readonly pid: number;
  /** Seconds of CPU that it and its children have used so far. */
  cpu(): number;
  /** Bytes resident now, of it and its children. */
  rss(): number;
  /** The most that it, alone, ever had resident, bytes. */
  peakRss(): number;
  stop(signal?: Deno.Signal): Promise<void>;
}

/** Options for {@linkcode start}. */
export interface StartOptions {
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** Clock ticks per second, as Linux has it on every architecture of today. */
const TICKS = 100;

/** Starts `command`. Its environment is `env` alone; its output is thrown away by the system. */
export function start(command: string, { args, env, cwd }: StartOptions): Program {
  const child = new Deno.Command(command, {
    args: [...args],
    env: { ...env },
    clearEnv: env !== undefined,
    cwd,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const { pid } = child;
  let hasEnded = false;
  const ended = child.status.then(() => {
    hasEnded = true;
  });
  const family = () => [pid, ...childrenOf(pid)];
  return {
    pid,
    cpu: () => family().reduce((sum, one) => sum + cpuOf(one), 0),
    rss: () => family().reduce((sum, one) => sum + statusOf(one, "VmRSS"), 0),
    peakRss: () => statusOf(pid, "VmHWM"),
    async stop(signal = "SIGTERM") {
      if (!hasEnded) child.kill(signal);
      const timer = setTimeout(() => hasEnded || child.kill("SIGKILL"), 10_000);
      await ended;
      clearTimeout(timer);
    },
  };
}

function cpuOf(pid: number): number {
  const stat = read(`/proc/${pid}/stat`);
  // The name in brackets may hold anything; user and system time are the 14th and 15th field.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS || 0;
}

function statusOf(pid: number, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(read(`/proc/${pid}/status`))?.[1]) *
      1024 || 0;
}

function childrenOf(pid: number): number[] {
  const children = read(`/proc/${pid}/task/${pid}/children`).trim();
  return children === "" ? [] : children.split(" ").map(Number);
}

function read(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return ""; // it has just ended
  }
}
