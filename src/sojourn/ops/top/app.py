"""The live view on Textual: a head, one table, and keys. Only what is seen is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import DataTable, Static

from sojourn.clock import Clock
from sojourn.errors import SojournError
from sojourn.ops.ps import SORTS, detail
from sojourn.ops.top.head import head
from sojourn.ops.top.views import FILTERS, VIEWS, Choice, View
from sojourn.ops.top.watch import Asked, Look, Watch
from sojourn.ops.words import duration, plain, shortened

__all__ = ["Top"]

#: Seconds between two looks at the head.
_HEAD: Final = 2.0
#: What problems with it are kept under; those of views by the name of the view.
_HEAD_PART: Final = "head"
_LIMITS: Final = (10, 25, 50, 100, 250, 1000)
#: The widest a cell may be.
_WIDEST: Final = 60

_HELP: Final = (
    ("1 … 6, tab", "another view"),
    ("o", "another order of the connections"),
    ("n", "more rows, and after the most the fewest"),
    ("a / s / x", "only older ones / slow ones / suspicious ones"),
    ("enter", "all about the connection under the cursor"),
    ("p", "pause, and go on"),
    ("+ / -", "look more often / less often at what is shown"),
    ("r", "look now"),
    ("esc", "close what lies on top"),
    ("q", "quit"),
)


class _Card(ModalScreen[None]):
    """Labels with texts, on top of the table."""

    BINDINGS: ClassVar = [Binding("escape,enter,q,question_mark", "dismiss", "close")]
    CSS = """
    _Card { align: center middle; }
    #card { width: 90%; max-width: 100; height: auto; max-height: 90%; border: round $accent; padding: 1 2; }
    """

    def __init__(self, lines: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._text = Static(_aligned(lines), id="lines", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(id="card"):
            yield self._text

    def show(self, lines: Sequence[tuple[str, str]]) -> None:
        """Show other lines."""
        self._text.update(_aligned(lines))


class Top(App[None]):
    """The live view.

    Args:
        admin: Whom to ask.
        clock: Where moments come from.
        choice: What is chosen at the beginning.
    """

    TITLE = "sojourn top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: auto; padding: 0 1; background: $panel; }
    #views { height: 1; padding: 0 1; }
    #table { height: 1fr; }
    #foot { height: 1; padding: 0 1; background: $panel; }
    """
    BINDINGS: ClassVar = [
        *(Binding(str(index), f"view({index - 1})", view.name) for index, view in enumerate(VIEWS, 1)),
        Binding("tab", "next_view", "next view", priority=True),
        Binding("o", "sort", "order"),
        Binding("n", "limit", "rows"),
        Binding("a", "filter('older')", "older"),
        Binding("s", "filter('slow')", "slow"),
        Binding("x", "filter('suspicious')", "suspicious"),
        Binding("p", "pause", "pause"),
        Binding("r", "refresh_now", "look now"),
        Binding("plus", "hurry(0.5)", "more often"),
        Binding("minus", "hurry(2.0)", "less often"),
        Binding("question_mark", "keys", "keys"),
        Binding("q", "quit", "quit"),
    ]

    def __init__(self, admin: Asked, clock: Clock, choice: Choice | None = None) -> None:
        super().__init__()
        self.choice = choice or Choice()
        self.watch_ = Watch(admin, clock)
        self._admin = admin
        self._view = 0
        self._paces = [view.seconds for view in VIEWS]
        self._answers: list[Any] = [None] * len(VIEWS)
        self._rows: dict[str, Mapping[str, Any]] = {}
        # Kept, not looked for: a card may lie on top, and answers may come while everything ends.
        self._head = Static("", id="head", markup=False)
        self._titles = Static("", id="views", markup=False)
        self._table: DataTable[Text] = DataTable(id="table", cursor_type="row", zebra_stripes=True)
        self._foot = Static("", id="foot", markup=False)
        self._paused = False
        self._problems: dict[str, str] = {}
        self._timer: Timer | None = None
        self._card: tuple[_Card, str] | None = None

    @property
    def view(self) -> View:
        """The view that is shown."""
        return VIEWS[self._view]

    def compose(self) -> ComposeResult:
        yield from (self._head, self._titles, self._table, self._foot)

    def on_mount(self) -> None:
        """Begin to look."""
        self.set_interval(_HEAD, self._look)
        self._look()
        self._show_view()

    # -- Looking

    def _look(self) -> None:
        if not self._paused:
            self._fetch_head()

    def _look_closer(self) -> None:
        if not self._paused and self.view.fetch is not None:
            self._fetch_view(self._view, self.choice)

    @work(thread=True, exclusive=True, group="head")
    def _fetch_head(self) -> None:
        try:
            status, look = self.watch_.fetch()
        except SojournError as error:
            self._back(self._failed, _HEAD_PART, str(error))
        else:
            self._back(self._looked, status, look)

    @work(thread=True, exclusive=True, group="view")
    def _fetch_view(self, index: int, choice: Choice) -> None:
        fetch = VIEWS[index].fetch
        assert fetch is not None
        try:
            answer = fetch(self._admin, choice)
        except SojournError as error:
            self._back(self._failed, VIEWS[index].name, str(error))
        else:
            self._back(self._came, index, choice, answer)

    def _back(self, callback: Any, *arguments: Any) -> None:
        """Go on in the application's own thread, unless it has ended meanwhile."""
        if self.is_running:
            self.call_from_thread(callback, *arguments)

    def _looked(self, status: Mapping[str, Any], look: Look) -> None:
        self._problems.pop(_HEAD_PART, None)
        self.watch_.note(status, look)
        self._head.update("\n".join(head(self.watch_)))
        if self.view.fetch is None:
            self._fill()
        self._show_foot()

    def _came(self, index: int, choice: Choice, answer: Any) -> None:
        if choice.filters == self.choice.filters:
            self._problems.pop(VIEWS[index].name, None)
            self._answers[index] = answer
            if index == self._view:
                self._fill()

    def _failed(self, part: str, problem: str) -> None:
        self._problems[part] = problem
        self._show_foot()

    # -- Showing

    def _show_view(self) -> None:
        table = self._table
        table.clear(columns=True)
        for column in self.view.columns:
            table.add_column(column.title, key=column.title)
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_interval(self._paces[self._view], self._look_closer)
        self._fill()
        self._look_closer()

    def _fill(self) -> None:
        """Put the newest rows into the table; the cursor stays on its row."""
        table, view = self._table, self.view
        answer = self._answers[self._view]
        known = answer is not None or view.fetch is None
        rows = view.rows(self.watch_, answer, self.choice) if known else ()
        under = self._under_cursor()
        self._rows = {view.key(row): row for row in rows[: self.choice.limit]}
        table.clear()
        for key, row in self._rows.items():
            table.add_row(*(_cell(column.show(row), column.right) for column in view.columns), key=key)
        if under in self._rows:
            table.move_cursor(row=list(self._rows).index(under))
        self._show_titles(len(rows))
        self._show_foot()
        if self._card is not None:
            card, name = self._card
            if card.is_current and self._view == 0:
                card.show(detail(self._rows[name]) if name in self._rows else [("connection", f"{name} is gone")])

    def _show_titles(self, count: int) -> None:
        names = [
            f"[{index} {view.name}]" if view is self.view else f" {index} {view.name} "
            for index, view in enumerate(VIEWS, 1)
        ]
        about = self.view.note.format(seconds=duration(self.watch_.seconds))
        more = [f"{len(self._rows)} of {count}", about]
        if self._view == 0:
            more += [f"by {self.choice.sort}", *(f"only {name}" for name in sorted(self.choice.filters))]
        self._titles.update(f"{' '.join(names)}   {', '.join(filter(None, more))}")

    def _show_foot(self) -> None:
        state = "paused" if self._paused else f"every {duration(self._paces[self._view])}"
        text = f"? keys   q quit   {state}"
        problem = self._problems.get(_HEAD_PART) or self._problems.get(self.view.name)
        if problem:
            text += f"   {plain(problem)}"
        self._foot.update(text)

    def _under_cursor(self) -> str | None:
        table = self._table
        if not table.row_count:
            return None
        return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value

    # -- Keys

    def action_view(self, index: int) -> None:
        """Show another view."""
        self._view = index
        self._show_view()

    def action_next_view(self) -> None:
        """Show the next view."""
        self.action_view((self._view + 1) % len(VIEWS))

    def action_sort(self) -> None:
        """Take the next order of the connections."""
        orders = list(SORTS)
        self.choice = self.choice._replace(sort=orders[(orders.index(self.choice.sort) + 1) % len(orders)])
        self._fill()

    def action_limit(self) -> None:
        """Show more rows; after the most, the fewest."""
        larger = [limit for limit in _LIMITS if limit > self.choice.limit]
        self.choice = self.choice._replace(limit=larger[0] if larger else _LIMITS[0])
        self._fill()

    def action_filter(self, name: str) -> None:
        """Switch a filter of the connections."""
        assert name in FILTERS
        self.choice = self.choice._replace(filters=self.choice.filters ^ {name})
        self._view = 0
        self._answers[0] = None
        self._show_view()

    def action_pause(self) -> None:
        """Stop looking, or go on."""
        self._paused = not self._paused
        self._show_foot()

    def action_refresh_now(self) -> None:
        """Look now, also while paused."""
        self._fetch_head()
        if self.view.fetch is not None:
            self._fetch_view(self._view, self.choice)

    def action_hurry(self, factor: float) -> None:
        """Look more often, or less often, at this view."""
        self._paces[self._view] = min(60.0, max(0.5, self._paces[self._view] * factor))
        self._show_view()

    def action_keys(self) -> None:
        """Explain the keys."""
        self.push_screen(_Card(_HELP))

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Show all about a connection."""
        name = event.row_key.value
        if self._view == 0 and name in self._rows:
            self._card = (_Card(detail(self._rows[name])), name)
            self.push_screen(self._card[0])


def _cell(text: str, right: bool) -> Text:
    """A cell: never markup, whatever a stranger sent."""
    return Text(shortened(plain(text), _WIDEST), justify="right" if right else "left", no_wrap=True)


def _aligned(lines: Sequence[tuple[str, str]]) -> str:
    width = max(len(label) for label, _ in lines)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in lines)
