from hw1.studies.headlines import headline


class SeedSpread:
    """Where the test loss ends, seed by seed."""

    def check(self, runs, swept):
        """Any sweep will do."""

    def measure(self, sweep, cache):
        """Table `ends`; {} where no run is complete."""
        runs = sweep.complete()
        return {"ends": runs.table("test/loss")} if runs.runs else {}

    def draw(self, tables, keys):
        """One dot a seed."""
        from matplotlib.figure import Figure

        from hw1.plots.style import COLORS, style

        ends = tables["ends"]
        with style():
            figure = Figure(figsize=(6, 3))
            axes = figure.subplots()
            axes.plot(ends["seed"], ends["test/loss"], "o", color=COLORS[0])
            axes.set(xlabel="seed", ylabel="test loss")
            figure.suptitle(f"{ends['source'].iloc[0]}, n = {len(ends)} seeds", fontsize=10)
        return {"ends": figure}

    def headlines(self, tables, keys):
        """The mean over seeds."""
        return [headline("test_loss", list(tables["ends"]["test/loss"]))]
