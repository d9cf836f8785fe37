/**
 * What a study's page needs beside the shared style sheet: the claims' answers and the heat maps' colours.
 * Like the shared one it loads nothing.
 */
export const STUDY_STYLE = `
:root { --heat-seen: #ff7a00; --heat-unseen: #0a6cff; }
.claims { display: grid; gap: .8rem; margin: .8rem 0; }
.claim { background: var(--card); border: 1px solid var(--line); border-left: 5px solid var(--quiet); border-radius: 6px; padding: .5rem 1rem; }
.claim p { margin: .2rem 0; }
.claim.yes { border-left-color: var(--yes); } .claim.no { border-left-color: var(--no); }
.claim .answer { float: right; font-weight: 700; margin-left: 1rem; }
.claim.yes .answer { color: var(--yes); } .claim.no .answer { color: var(--no); } .claim.undecided .answer { color: var(--quiet); }
section > h3 { margin-top: 2.2rem; font-size: 1.12rem; }
.ci { white-space: nowrap; }
.scroll td { min-width: 4.2rem; }
svg.heat { width: 100%; border-radius: 3px; }
details .panels { margin-top: .8rem; }
@media print { .claim { break-inside: avoid; } .panels { grid-template-columns: repeat(3, 1fr); } }
`;
