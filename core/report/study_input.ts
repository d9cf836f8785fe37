/**
 * What a study's report is made from: the configuration, the results of its cells, and what stands beside them. A report
 * is made of the cells that are there; those that are missing are named in it, never filled in.
 */
import type { Cell, Identities } from "../study/cells.ts";
import type { StudyConfig } from "../study/config.ts";
import type { GradientResult, ProbeResult, SaysResult, TuneResult } from "../study/results.ts";
import type { ShownPicture } from "../study/shown.ts";
import type { Scatter } from "./embed.ts";

/** A place of the grid, where the result of one cell stands; two places may share a cell. */
export type CellResult =
  | { kind: "tune"; key: Cell["key"]; id: string; result: TuneResult }
  | { kind: "probe"; key: Cell["key"]; id: string; result: ProbeResult }
  | { kind: "says"; key: Cell["key"]; id: string; result: SaysResult }
  | { kind: "gradients"; key: Cell["key"]; id: string; result: GradientResult };

/** A probed picture of one arm with what each of its image tokens adds to the probe's log-odds. */
export interface HeatMap extends ShownPicture {
  model: string;
  data: string;
  batch: number;
  seed: number;
  arm: string;
  /** Whose probe it is; absent with `values` where tokens lie on no grid. */
  feature?: string;
  /** Row by row; with the intercept they add up to the score. */
  values?: number[];
  score?: number;
}

export interface ArmScatter extends Scatter {
  model: string;
  data: string;
  batch: number;
  seed: number;
  arm: string;
  feature: string;
  /** "U1" or "U2" of every point. */
  sets: string[];
  people: string[];
}

export interface StudyTimes {
  /** When the report was written, ISO 8601. */
  written: string;
  /** Device seconds and probe seconds, summed over cells by kind. */
  seconds: Record<string, number>;
  /** Devices that cells ran on. */
  adapters: string[];
}

export interface StudyInput {
  config: StudyConfig;
  identities: Identities;
  results: CellResult[];
  /** Cells of the grid that are not done, in words. */
  missing: string[];
  scatters: ArmScatter[];
  heatMaps: HeatMap[];
  /** As typed, in order. */
  commands: string[];
  versions: Record<string, string>;
  times: StudyTimes;
}
