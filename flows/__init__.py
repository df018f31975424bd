"""How the stages are run: from a shell (`sirl`, flows.cli) and from Prefect (flows.sirl_flow)."""
