"""The runtime refuses to start on a lie: each test plants one in contracts and tables that are right without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backbone.contract import all_topics, check_platform, primary_of, resolve, resolve_context, row_key
from backbone.declare import Context, Decider, Effect, Intake, Platform, Query, Service, Tail, View, happened_at, on, sibling
from backbone.errors import ContractError, DeclarationError
from tests.small_contracts import Compile, Small, State, answer, connect, decide, decider, effect, fold

ORDER = "ordering/v1/order"
ORDER_ROWS = "ordering/views/v1/rows"
STOCK = "stocking/v1/stock"
STOCK_EFFECTS = "stocking/effects/v1/stock"


@pytest.fixture
def contracts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compile:
    """Compiles the small contracts, with changes."""
    return Compile(tmp_path, monkeypatch)


@pytest.fixture
def small(contracts: Compile) -> Small:
    """The small contracts as they are."""
    return contracts()


def ordering(*services: Service) -> Context:
    """The context ordering with other services than it should have."""
    return Context("ordering", *services)


def stocking(*services: Service) -> Context:
    """The context stocking with other services than it should have."""
    return Context("stocking", *services)


class Refusal:
    """Expects a ContractError that says where, what and how to mend it.

    Args:
        where: words of the place.
        what: words of what is wrong.
        remedy: words of the remedy.
    """

    def __init__(self, where: str, what: str, remedy: str) -> None:
        self._words = (where, what, remedy)
        self._raises = pytest.raises(ContractError)

    def __enter__(self) -> None:
        self._caught = self._raises.__enter__()

    def __exit__(self, *exception: Any) -> bool:
        handled = self._raises.__exit__(*exception)
        error = self._caught.value
        for words, said in zip(self._words, (error.where, error.what, error.remedy), strict=True):
            assert words in said, f"expected {words!r} in {said!r}"
        return handled


def test_contracts_and_tables_that_agree_are_accepted(small: Small) -> None:
    resolved = check_platform(small.platform(), small.root)
    assert [service.name for services in resolved.values() for service in services] == ["ordering.orders", "stocking.stock"]
    orders, stock = resolved["ordering"][0], resolved["stocking"][0]
    assert orders.decider is not None
    assert stock.decider is not None
    assert [topic.name for topic in orders.decider.inputs] == [f"{small.root}.stock-by-order"]
    assert [topic.key for topic in stock.decider.inputs] == ["sku", "sku"]


def test_an_event_in_no_wrapper(small: Small) -> None:
    with Refusal(f"{small.root}/ordering/v1/order.proto: {small.root}.ordering.v1.Stray", "no wrapper", "same file"):
        primary_of(small.Stray)


def test_a_table_that_hears_an_event_in_no_wrapper(small: Small) -> None:
    stock = small.stock(decider((small.StockMoved, small.FetchGoods), on(small.Stray, decide)), without=Decider)
    with Refusal("Stray", "no wrapper", "Add it to the oneof"):
        resolve_context(stocking(stock))


def test_an_event_in_two_primary_topics(contracts: Compile) -> None:
    small = contracts((ORDER, ' copy_of: "ROOT.orders"', ""))
    with Refusal("OrderPlaced", f"two primary topics, {small.root}.orders and {small.root}.orders-by-sku", "copy_of"):
        resolve_context(ordering(small.orders()))


@pytest.mark.parametrize("missing", ['name: "ROOT.orders" ', 'key: "order_id" ', 'writer: "ordering.orders"'])
def test_a_wrapper_that_does_not_say_name_key_or_writer(contracts: Compile, missing: str) -> None:
    option = '{name: "ROOT.orders" key: "order_id" writer: "ordering.orders"}'
    small = contracts((ORDER, option, option.replace(missing, "")))
    with Refusal("OrderEvent", f"lacks {missing.partition(':')[0]}", "name, key and writer"):
        resolve_context(ordering(small.orders()))


def test_a_wrapper_that_holds_more_than_its_events(contracts: Compile) -> None:
    small = contracts((ORDER, "OrderClosed order_closed = 2; }", "OrderClosed order_closed = 2; } string note = 3;"))
    with Refusal("OrderEvent", "nothing else", "into the events"):
        resolve_context(ordering(small.orders()))


def test_a_wrapper_whose_meta_has_another_number(contracts: Compile) -> None:
    small = contracts((ORDER, "meta = 15", "meta = 14"))
    with Refusal("OrderEvent", "field 15", "Add it"):
        resolve_context(ordering(small.orders()))


def test_a_wrapper_of_something_that_is_no_message(contracts: Compile) -> None:
    small = contracts((ORDER, "OrderClosed order_closed = 2;", "string order_closed = 2;"))
    with Refusal("OrderEvent", "order_closed is not a message", "Events are messages"):
        primary_of(small.OrderPlaced)


def test_a_decider_that_says_what_it_does_not_own(small: Small) -> None:
    orders = small.orders(decider((small.OrderPlaced, small.StockMoved), on(small.StockMoved, decide)), without=Decider)
    with Refusal("ordering.orders", f"{small.root}.stock, whose writer is stocking.stock", "hear it"):
        resolve_context(ordering(orders))


def test_a_decider_that_says_events_of_two_topics(contracts: Compile) -> None:
    small = contracts((STOCK, "stocking.stock", "ordering.orders"))
    orders = small.orders(decider((small.OrderPlaced, small.StockMoved), on(small.StockMoved, decide)), without=Decider)
    with Refusal("ordering.orders", "2 topics", "one aggregate"):
        resolve_context(ordering(orders))


def test_a_topic_with_two_writers_refuses_both_of_them(contracts: Compile) -> None:
    small = contracts((STOCK, 'name: "ROOT.stock"', 'name: "ROOT.orders"'), (STOCK, 'copy_of: "ROOT.stock"', 'copy_of: "ROOT.orders"'))
    for context in small.platform().contexts:
        with Refusal("StockEvent", f"{small.root}.orders has two writers, ordering.orders and stocking.stock", "one writer"):
            resolve_context(context)


def test_a_topic_with_two_wrappers(contracts: Compile) -> None:
    small = contracts((ORDER, '"ROOT.orders-by-sku"', '"ROOT.orders"'))
    with Refusal("OrderBySkuEvent", f"{small.root}.orders is also declared by {small.root}.ordering.v1.OrderEvent", "one topic"):
        all_topics(small.root)


def test_a_writer_that_does_not_exist(small: Small) -> None:
    with Refusal("Stock", "the writer stocking.stock, which is no service", "Name a service"):
        check_platform(Platform(ordering(small.orders())), small.root)


def test_an_intake_that_raises_what_it_does_not_own(small: Small) -> None:
    with Refusal("ordering.orders", f"takes in StockMoved of {small.root}.stock, whose writer is stocking.stock", "Raise what you own"):
        resolve_context(ordering(small.orders(Intake(small.StockMoved))))


def test_a_service_that_decides_and_takes_in_events_of_one_topic(small: Small) -> None:
    with Refusal("ordering.orders", f"decides and takes in events of {small.root}.orders", "topic of its own"):
        resolve_context(ordering(small.orders(Intake(small.OrderPlaced))))


def test_a_copy_of_a_topic_that_nobody_declares(contracts: Compile) -> None:
    small = contracts((ORDER, 'copy_of: "ROOT.orders"', 'copy_of: "ROOT.older"'))
    with Refusal("OrderBySkuEvent", f"copies {small.root}.older", "Name a primary"):
        all_topics(small.root)


def test_a_copy_by_another_writer(contracts: Compile) -> None:
    small = contracts((ORDER, 'writer: "ordering.orders" copy_of', 'writer: "ordering.copies" copy_of'))
    with Refusal("OrderBySkuEvent", "has writer ordering.copies, its primary ordering.orders", "primary's writer"):
        all_topics(small.root)


def test_a_copy_that_numbers_an_event_differently(contracts: Compile) -> None:
    small = contracts((ORDER, "oneof event { OrderPlaced order_placed = 1; }", "oneof event { OrderPlaced order_placed = 2; }"))
    with Refusal("OrderBySkuEvent", "OrderPlaced is field 2", "under its number"):
        all_topics(small.root)


def test_an_event_without_the_key_of_its_topic(contracts: Compile) -> None:
    small = contracts((ORDER, "message OrderClosed { string order_id = 1; }", "message OrderClosed { string id = 1; }"))
    with Refusal("OrderEvent", "OrderClosed has no string field 'order_id'", "carries its key"):
        resolve_context(ordering(small.orders()))


def test_an_event_whose_key_is_no_string(contracts: Compile) -> None:
    small = contracts((ORDER, "message OrderClosed { string order_id = 1; }", "message OrderClosed { int64 order_id = 1; }"))
    with Refusal("OrderEvent", "OrderClosed has no string field 'order_id'", "carries its key"):
        resolve_context(ordering(small.orders()))


def test_a_row_that_does_not_say_its_key(contracts: Compile) -> None:
    small = contracts((ORDER_ROWS, 'option (backbone.v1.row) = {key: "order_id"};', ""))
    with Refusal("OrderRow", "is no row", 'option (backbone.v1.row) = {key: "..."}'):
        resolve_context(ordering(small.orders()))


def test_a_row_that_names_a_key_it_does_not_have(contracts: Compile) -> None:
    small = contracts((ORDER_ROWS, '{key: "order_id"}', '{key: "id"}'))
    with Refusal("OrderRow", "no string field 'id'", "Name a string field"):
        row_key(small.OrderRow)


def test_a_key_that_is_ambiguous_because_two_topics_offer_it(contracts: Compile) -> None:
    again = """
message OrderAgainEvent {
  option (backbone.v1.topic) = {name: "ROOT.orders-again" key: "sku" writer: "ordering.orders" copy_of: "ROOT.orders"};
  oneof event { OrderPlaced order_placed = 1; }
  backbone.v1.Meta meta = 15;
}
message OrderPlaced {"""
    small = contracts((ORDER, "message OrderPlaced {", again))
    with Refusal("stocking.stock", f"{small.root}.orders-again and {small.root}.orders-by-sku, both by 'sku'", "Keep one"):
        resolve_context(stocking(small.stock()))


def test_a_missing_key_names_the_fields_that_are_offered_and_the_one_that_is_wanted(small: Small) -> None:
    stock = small.stock(
        decider((small.StockMoved, small.FetchGoods), on(small.OrderClosed, decide), on(small.GoodsFetched, decide)), without=Decider
    )
    with Refusal("stocking.stock", f"OrderClosed is offered as {small.root}.orders by order_id, and not by 'sku'", "key="):
        resolve_context(stocking(stock))


def test_a_key_made_from_the_event_is_an_answer_to_that(small: Small) -> None:
    heard = on(small.OrderClosed, decide, key=lambda event: [event.order_id])
    stock = small.stock(decider((small.StockMoved, small.FetchGoods), heard, on(small.GoodsFetched, decide)), without=Decider)
    (resolved,) = resolve_context(stocking(stock))
    assert resolved.decider is not None
    assert [topic.name for topic in resolved.decider.repartitioned] == [f"{small.root}.orders"]


def test_a_key_that_names_a_field_reads_the_topic_offered_by_it(small: Small) -> None:
    heard = on(small.OrderClosed, decide, key="order_id")
    stock = small.stock(decider((small.StockMoved, small.FetchGoods), heard, on(small.GoodsFetched, decide)), without=Decider)
    (resolved,) = resolve_context(stocking(stock))
    assert resolved.decider is not None
    assert f"{small.root}.orders" in [topic.name for topic in resolved.decider.inputs]


def test_a_key_that_names_a_field_nobody_offers_the_event_by(small: Small) -> None:
    heard = on(small.OrderPlaced, decide, key="customer_id")
    stock = small.stock(decider((small.StockMoved, small.FetchGoods), heard, on(small.GoodsFetched, decide)), without=Decider)
    with Refusal("stocking.stock", "and not by 'customer_id'", "offer a copy"):
        resolve_context(stocking(stock))


def test_a_decider_that_hears_nothing(small: Small) -> None:
    with Refusal("ordering.orders", "hears nothing", "on(Event, decision)"):
        resolve_context(ordering(small.orders(decider((small.OrderPlaced,)), without=Decider)))


def test_a_decider_that_hears_an_event_in_two_lines(small: Small) -> None:
    twice = decider((small.OrderPlaced,), on(small.StockMoved, decide), on(small.StockMoved, decide))
    with Refusal("ordering.orders", "StockMoved in two lines", "Make one line"):
        resolve_context(ordering(small.orders(twice, without=Decider)))


def test_a_decider_whose_evolve_does_not_say_what_it_may_say(small: Small) -> None:
    def evolve(state, said):  # type: ignore[no-untyped-def]
        return state

    with Refusal("evolve", "not annotated", "evolve(state: State, said: EventA | EventB)"):
        resolve_context(ordering(small.orders(Decider(State, evolve, on(small.StockMoved, decide)), without=Decider)))


def test_two_deciders_in_a_service(small: Small) -> None:
    with pytest.raises(DeclarationError, match="orders has 2 pieces Decider"):
        small.orders(decider((small.OrderPlaced,), on(small.StockMoved, decide)))


def test_a_decision_that_looks_up_a_view_of_another_service(small: Small) -> None:
    elsewhere = View(small.OrderRow, on(small.OrderPlaced, fold))
    asks = decider((small.OrderPlaced,), on(small.StockMoved, decide, look_up=elsewhere.rows(lambda event: [event.order_id])))
    with Refusal("ordering.orders", "looks up order_row, which is not a view of ordering.orders", "Add the view"):
        resolve_context(ordering(small.orders(asks, without=Decider)))


def test_a_decision_that_looks_up_four_things(small: Small) -> None:
    line: Any = on
    asks = decider((small.OrderPlaced,), line(small.StockMoved, decide, look_up=(happened_at,) * 4))
    with Refusal("ordering.orders", "looks up 4 things", "at most three"):
        resolve_context(ordering(small.orders(asks, without=Decider)))


def test_a_piece_that_is_none(small: Small) -> None:
    with Refusal("ordering.orders", "'something' is no piece", "Use Decider"):
        resolve_context(ordering(small.orders("something")))


def test_a_tail_over_two_topics(small: Small) -> None:
    with Refusal("ordering.orders", "a tail hears 2 topics", "one topic"):
        resolve_context(ordering(small.orders(Tail(small.OrderPlaced, small.StockMoved))))


def test_a_view_over_two_topics(small: Small) -> None:
    view = View(small.OrderRow, on(small.OrderPlaced, fold), on(small.StockMoved, fold))
    with Refusal("view OrderRow", f"folds {small.root}.orders and {small.root}.stock-by-order", "one topic"):
        resolve(ordering(), Service("orders", view))


def test_a_view_that_is_filled_by_nothing(small: Small) -> None:
    with Refusal("view OrderRow", "filled by nothing", "on(Event, function)"):
        resolve(ordering(), Service("orders", View(small.OrderRow)))


def test_a_view_that_looks_up_rows(small: Small) -> None:
    """When the record was appended it may look up."""

    def fold_at(rows: object, came: object, looked_up: object) -> None:
        """Folds nothing."""

    other = View(small.OrderRow, on(small.OrderPlaced, fold))
    view = View(small.OrderRow, on(small.OrderPlaced, fold_at, look_up=other.rows(lambda event: [event.order_id])))
    with Refusal("view OrderRow", "looks up rows", "join two views at read"):
        resolve(ordering(), Service("orders", view))
    resolve(ordering(), Service("orders", View(small.OrderRow, on(small.OrderPlaced, fold_at, look_up=happened_at))))


def test_a_view_with_a_key_of_its_own(small: Small) -> None:
    for key in ("order_id", lambda event: event.order_id):
        view = View(small.OrderRow, on(small.OrderPlaced, fold, key=key))
        with Refusal("view OrderRow", "has a key=", "offer a copy"):
            resolve(ordering(), Service("orders", view))


def test_two_views_of_one_row(small: Small) -> None:
    view = View(small.OrderRow, on(small.OrderPlaced, fold))
    with Refusal("ordering.orders", "two views of one row", "Name rows"):
        resolve_context(ordering(small.orders(view)))


def test_an_rpc_without_an_answer(small: Small) -> None:
    with Refusal("context ordering", f"nobody answers /{small.root}.ordering.views.v1.OrderViewService/GetOrder", "Give a Query"):
        resolve_context(ordering(small.orders(without=Query)))


def test_an_rpc_with_two_answers_in_one_service(small: Small) -> None:
    rows = View(small.OrderRow, on(small.OrderPlaced, fold))
    twice = Query(rows, on(small.GetOrderRequest, answer), on(small.GetOrderRequest, answer))
    with Refusal("ordering.orders", "GetOrder twice", "Keep one"):
        resolve(ordering(), Service("orders", rows, twice))


def test_an_rpc_with_two_answers_in_two_services(small: Small) -> None:
    rows = View(small.OrderRow, on(small.OrderPlaced, fold))
    copycat = Service("copycat", rows, Query(rows, on(small.GetOrderRequest, answer)))
    with Refusal("context ordering", "GetOrder is answered by ordering.orders and ordering.copycat", "Keep one"):
        resolve_context(ordering(small.orders(), copycat))


def test_a_query_that_answers_no_rpc(small: Small) -> None:
    rows = View(small.OrderRow, on(small.OrderPlaced, fold))
    with Refusal("GetOrderResponse", "the request of 0 RPCs", "the one RPC"):
        resolve(ordering(), Service("orders", rows, Query(rows, on(small.GetOrderResponse, answer))))


def test_a_query_of_a_view_of_another_service(small: Small) -> None:
    rows = View(small.OrderRow, on(small.OrderPlaced, fold))
    with Refusal("ordering.orders", "a query reads order_row, which is not a view", "Add it"):
        resolve(ordering(), Service("orders", Query(rows, on(small.GetOrderRequest, answer))))


def test_a_view_with_a_row_of_another_context(small: Small) -> None:
    with Refusal("ordering.orders", "StockRow, which is private to stocking", "events only"):
        resolve_context(ordering(small.orders(View(small.StockRow, on(small.StockMoved, fold)))))


def test_an_answer_to_an_rpc_of_another_context(small: Small) -> None:
    rows = View(small.OrderRow, on(small.OrderPlaced, fold))
    with Refusal("ordering.orders", "GetStockRequest, which is private to stocking", "events only"):
        resolve(ordering(), Service("orders", rows, Query(rows, on(small.GetStockRequest, answer))))


def test_an_effect_that_does_a_command_of_another_context(small: Small) -> None:
    with Refusal("ordering.orders", "FetchGoods, which is private to stocking", "events only"):
        resolve_context(ordering(small.orders(effect(connect, on(small.FetchGoods, answer)))))


def test_a_decider_that_hears_or_says_what_is_private_to_another_context(small: Small) -> None:
    for said, heard in (((small.OrderPlaced, small.FetchGoods), small.StockMoved), ((small.OrderPlaced,), small.GoodsFetched)):
        with Refusal("ordering.orders", "which is private to stocking", "events only"):
            resolve_context(ordering(small.orders(decider(said, on(heard, decide)), without=Decider)))


def test_a_decider_that_hears_outcomes_of_another_service_of_its_context(small: Small) -> None:
    shelf = Service("shelf", decider((small.StockMoved,), on(small.GoodsFetched, decide)))
    with Refusal("stocking.shelf", "whose writer is stocking.stock", "hear it"):
        resolve(stocking(), shelf)


def test_a_stub_of_another_context(small: Small) -> None:
    foreign = effect(sibling(small.OrderViewServiceStub), on(small.FetchGoods, answer))
    with Refusal("stocking.stock", f"asks {small.root}.ordering.views.v1.rows_pb2_grpc", "hear the events of others"):
        resolve_context(stocking(small.stock(foreign, without=Effect)))


def test_a_stub_of_the_own_context_is_a_sibling(small: Small) -> None:
    own = effect(sibling(small.StockViewServiceStub), on(small.FetchGoods, answer))
    assert resolve_context(stocking(small.stock(own, without=Effect)))


def test_a_tail_of_what_is_private_to_another_context(small: Small) -> None:
    with Refusal("ordering.orders", "GoodsFetched, which is private to stocking", "events only"):
        resolve_context(ordering(small.orders(Tail(small.GoodsFetched))))


def test_a_command_that_nobody_does(small: Small) -> None:
    with Refusal("stocking.stock", "FetchGoods and no effect does it", "Give an Effect"):
        resolve_context(stocking(small.stock(without=Effect)))


def test_an_effect_that_nobody_asks_for(small: Small) -> None:
    silent = decider((small.StockMoved,), on(small.OrderPlaced, decide), on(small.GoodsFetched, decide))
    with Refusal("stocking.stock", "FetchGoods, which its decider never says", "evolve's union"):
        resolve_context(stocking(small.stock(silent, without=Decider)))


def test_a_command_that_two_effects_do(small: Small) -> None:
    with Refusal("stocking.stock", "two effects do", "one effect"):
        resolve_context(stocking(small.stock(effect(connect, on(small.FetchGoods, answer)))))


def test_an_effect_of_something_that_is_no_command(small: Small) -> None:
    with Refusal("stocking.stock", "OrderPlaced is no command", "stocking.effects"):
        resolve_context(stocking(small.stock(effect(connect, on(small.OrderPlaced, answer)))))


def test_an_effect_that_does_nothing(small: Small) -> None:
    with Refusal("stocking.stock", "does nothing", "on(Command, function)"):
        resolve_context(stocking(small.stock(effect(connect))))


def test_commands_in_a_topic_of_another_name(contracts: Compile) -> None:
    small = contracts((STOCK_EFFECTS, "private.stocking.stock.commands", "private.stocking.stock.orders"))
    with Refusal("stocking.stock", "says commands of private.stocking.stock.orders", "private.stocking.stock.commands"):
        resolve_context(stocking(small.stock()))


def test_commands_without_a_topic_for_what_comes_of_them(contracts: Compile) -> None:
    small = contracts((STOCK_EFFECTS, "private.stocking.stock.outcomes", "private.stocking.stock.results"))
    silent = decider((small.StockMoved, small.FetchGoods), on(small.OrderPlaced, decide))
    with Refusal("stocking.stock", "has no outcomes", "private.stocking.stock.outcomes"):
        resolve_context(stocking(small.stock(silent, without=Decider)))


def test_a_command_that_does_not_say_until_when_its_answer_is_of_use(contracts: Compile) -> None:
    small = contracts((STOCK_EFFECTS, "google.protobuf.Timestamp answer_by = 2;", "string answer_by = 2;"))
    with Refusal("FetchGoods", "has no Timestamp answer_by", "until when"):
        resolve_context(stocking(small.stock()))
