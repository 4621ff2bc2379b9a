"""Every dataset known by name is read as its publisher counted it, and every trap of its files is stepped around."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from simulator.datasets import (
    DATASETS,
    Dataset,
    DataSettings,
    check_dataset,
    load_dataset,
    locate_dataset,
    read_dataset,
)
from simulator.datasets.kuairec import MOST_WATCHED
from simulator.errors import LogError
from simulator.log import InteractionLog

LOGS = ("ml-100k", "ml-latest-small", "coat", "kuairec-sample", "lastfm-2k", "mind-small-sample", "restaurant-consumer",
        "emotify")  # fmt: skip
NO_LOGS = tuple(sorted(set(DATASETS) - set(LOGS)))


@cache
def read(name: str) -> Dataset:
    if check_dataset(name).folder is None:
        pytest.skip(f"{name} is in no folder of WINDTUNNEL_DATA")
    return read_dataset(name)


@cache
def log_of(name: str) -> InteractionLog:
    if check_dataset(name).folder is None:
        pytest.skip(f"{name} is in no folder of WINDTUNNEL_DATA")
    return load_dataset(DataSettings(source=name), Path())


def column(name: str, table: str, wanted: str) -> list[str]:
    tables = read(name).tables
    assert tables is not None
    return getattr(tables, table).text(wanted, "data").to_pylist()


# ------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", DATASETS)
def test_one_changed_byte_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(name)
    there = locate_dataset(name)
    smallest = min(DATASETS[name].files, key=lambda file: (there / file).stat().st_size)
    for file in DATASETS[name].files:
        copy = tmp_path / name / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file == smallest:
            content = bytearray((there / file).read_bytes())
            content[len(content) // 2] ^= 1
            copy.write_bytes(content)
        else:
            copy.symlink_to(there / file)
    monkeypatch.setenv("WINDTUNNEL_DATA", str(tmp_path))
    assert check_dataset(name).damaged == (smallest,)
    with pytest.raises(LogError, match="is not the published file"):
        read_dataset(name)


@pytest.mark.parametrize("name", DATASETS)
def test_what_a_dataset_cannot_tell_is_said_in_lines(name: str) -> None:
    limits = read(name).limits
    assert limits
    assert all("\n" not in limit and limit.strip() == limit for limit in limits)


@pytest.mark.parametrize("name", LOGS)
def test_a_log_runs_without_a_word_on_its_columns(name: str) -> None:
    log = log_of(name)
    assert log.catalogue.n_users > 100
    assert 0.01 < log.primary.mean() < 0.99
    assert any(log.catalogue.item_text)


@pytest.mark.parametrize("name", NO_LOGS)
def test_what_is_no_log_says_what_it_holds_and_which_command_uses_it(name: str) -> None:
    with pytest.raises(LogError) as caught:
        load_dataset(DataSettings(source=name), Path())
    message = str(caught.value)
    assert message.startswith(f"data.source: '{name}' holds ")
    assert "`" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", DATASETS)
def test_the_publisher_is_named_and_no_package_host_is(name: str) -> None:
    offered = " ".join(DATASETS[name].fetch)
    assert "publisher: " in offered
    assert not any(host in offered for host in ("pypi", "conda", "huggingface"))


# ------------------------------------------------------------------------------------------------- films


def test_ml_latest_small_has_the_counts_of_its_readme() -> None:
    log, found = log_of("ml-latest-small"), read("ml-latest-small")
    assert (len(log), log.catalogue.n_users, log.catalogue.n_items) == (100_836, 610, 9_742)
    assert len(np.unique(log.item)) == 9_724
    halves = np.bincount((2 * log.behaviours["rating"]).astype(int))[1:]
    assert halves.tolist() == [1370, 2811, 1791, 7551, 5550, 20047, 13136, 26818, 8551, 13211]
    assert found.tags is not None
    assert len(found.tags) == 3_683
    ids, features = found.item_features["trailer"]
    assert features.shape == (4_751, 7)
    assert set(ids) <= set(log.catalogue.item_ids)
    shown = np.isin(np.array(log.catalogue.item_ids)[log.item], ids)
    assert round(float(shown.mean()), 3) == 0.585


def test_a_film_without_genres_has_no_category_and_overviews_belong_to_their_film() -> None:
    catalogue = log_of("ml-latest-small").catalogue
    assert "(no" not in " ".join(catalogue.category_names)
    assert len(catalogue.category_names) == 19
    assert int((catalogue.item_categories.sum(axis=1) == 0).sum()) == 34
    titles, overviews = (column("ml-latest-small", "items", name) for name in ("title", "overview"))
    assert sum(1 for text in overviews if text) == 1_886
    assert "seven deadly sins" in overviews[titles.index("Seven (a.k.a. Se7en) (1995)")]


# ------------------------------------------------------------------------------------------------- coats


def test_coat_has_its_published_ratings_and_its_random_part_stays_apart() -> None:
    log, tables = log_of("coat"), read("coat").tables
    assert tables is not None
    assert tables.random is not None
    assert log.random is not None
    assert (log.catalogue.n_users, log.catalogue.n_items) == (290, 300)
    assert len(log) == 6960 - 366
    assert np.bincount(log.random.behaviours["rating"].astype(int)).tolist() == [0, 1879, 899, 1002, 641, 219]
    assert np.bincount(log.random.user).tolist() == [16] * 290
    pairs, tested = (set(zip(rows.user.tolist(), rows.item.tolist(), strict=True)) for rows in (log, log.random))
    assert not pairs & tested
    assert log.self_selected  # propensities are given, and still people chose
    assert log.propensity is not None
    assert 0.0025 <= log.propensity.min() <= log.propensity.max() <= 0.6903


def test_coats_and_their_wearers_have_the_features_of_their_row() -> None:
    log = log_of("coat")
    gender = log.catalogue.user_attributes["gender"]
    assert {value: int((gender == value).sum()) for value in np.unique(gender)} == {"men": 162, "women": 128}
    of_item = np.array(column("coat", "items", "gender_of_coat"))
    same = of_item[log.item] == gender[log.user]
    assert same.mean() > 0.8  # people choose coats of their own kind; columns of the wrong row would give a half
    assert len(log.catalogue.category_names) == 16


# ------------------------------------------------------------------------------------------------- short videos


def test_kuairec_is_clipped_and_its_four_broken_captions_are_dropped() -> None:
    log = log_of("kuairec-sample")
    assert (len(log), log.catalogue.n_users, log.catalogue.n_items) == (117_113, 1_411, 10_728)
    assert np.bincount(log.user).tolist() == [83] * 1_411
    ratio = log.behaviours["watch_ratio"]
    assert ratio.max() == MOST_WATCHED
    assert 0.7790 < np.median(ratio) < 0.7800
    assert round(float((ratio > 2).mean()), 4) == 0.0495
    assert round(float(log.primary.mean()), 2) == 0.33
    assert all(number.isdigit() for number in log.catalogue.item_ids)
    rows = np.bincount(log.item)
    assert (rows.max(), log.catalogue.item_ids[int(rows.argmax())]) == (1_400, "133")


def test_captions_of_kuairec_are_chinese_and_not_the_word_unknown() -> None:
    catalogue = log_of("kuairec-sample").catalogue
    assert catalogue.item_text[0].startswith("精神小伙路难走")
    assert not any("UNKNOWN" in text for text in catalogue.item_text)
    assert "颜值" in catalogue.category_names


# ------------------------------------------------------------------------------------------------- music


def test_last_fm_has_the_counts_of_its_readme_and_both_of_its_encodings() -> None:
    log, found = log_of("lastfm-2k"), read("lastfm-2k")
    assert (len(log), log.catalogue.n_users, log.catalogue.n_items) == (92_834, 1_892, 17_632)
    plays = log.behaviours["plays"]
    assert (plays.min(), np.median(plays), plays.max()) == (1, 260, 352_698)
    assert found.tags is not None
    assert found.friends is not None
    assert (len(found.tags), len(found.tags.words), len(found.friends)) == (186_479, 11_946, 25_434)
    names = column("lastfm-2k", "items", "name")
    assert "Röyksopp" in names  # UTF-8 in the file
    assert "español" in found.tags.words  # Latin-1 in the file
    assert not any("Ã" in name and "Â" in name for name in names)


def test_friends_are_friends_both_ways_and_dates_before_last_fm_are_not_believed() -> None:
    found = read("lastfm-2k")
    assert found.friends is not None
    assert found.tags is not None
    pairs = set(map(tuple, found.friends.tolist()))
    assert all((b, a) in pairs for a, b in pairs)
    assert int(np.isnan(found.tags.time).sum()) == 5
    assert np.nanmin(found.tags.time) > 1.1e9  # 2005


def test_liking_an_artist_is_playing_it_more_than_ones_own_median() -> None:
    log = log_of("lastfm-2k")
    plays, starts = log.behaviours["plays"], log.row_starts()
    for user in (0, 7, 900):
        own = slice(starts[user], starts[user + 1])
        assert np.array_equal(log.primary[own] == 1, plays[own] > np.median(plays[own]))


def test_clips_of_emotify_are_joined_by_genre_and_place_within_it() -> None:
    found = read("emotify")
    assert found.tables is not None
    assert found.media is not None
    assert len(found.tables.log) == 8_407
    clip = dict(zip(found.media.item_ids, found.media.names, strict=True))
    assert len(clip) == 400
    assert (clip["1"], clip["200"], clip["201"], clip["400"]) == (
        "classical/1.ogg", "rock/100.ogg", "electronic/1.ogg", "pop/100.ogg",
    )  # fmt: skip
    liked = np.array(column("emotify", "log", "liked")).astype(int)
    disliked = np.array(column("emotify", "log", "disliked")).astype(int)
    assert (round(liked.mean(), 3), round(disliked.mean(), 3)) == (0.391, 0.209)
    assert log_of("emotify").catalogue.n_users == 750


def test_a_clip_of_emotify_sounds_as_its_listeners_say() -> None:
    """The wrong join (by info.csv's numbers) gives no correlation: 99 % of random joins stay under 0.13."""
    soundfile = pytest.importorskip("soundfile")
    found = read("emotify")
    assert found.media is not None
    assert found.tables is not None
    loud = []
    chosen = range(0, 400, 4)
    for at in chosen:
        samples, rate = soundfile.read(io.BytesIO(found.media.read(found.media.names[at])))
        assert (rate, len(samples)) == (16_000, 128_000)
        loud.append(20 * np.log10(np.sqrt(np.mean(samples**2)) + 1e-9))
    track = np.array(column("emotify", "log", "item_id")).astype(int)
    calm = np.array(column("emotify", "log", "calmness")).astype(float)
    mean = np.array([calm[track == int(found.media.item_ids[at])].mean() for at in chosen])
    genre = found.media.label[list(chosen)]
    within = lambda values: values - np.array([values[genre == g].mean() for g in range(4)])[genre]  # noqa: E731
    assert np.corrcoef(within(np.array(loud)), within(mean))[0, 1] < -0.13


# ------------------------------------------------------------------------------------------------- news


def test_mind_has_its_published_impressions_and_the_log_is_the_same_rows() -> None:
    log, found = log_of("mind-small-sample"), read("mind-small-sample")
    offers = found.impressions
    assert offers is not None
    assert (len(offers), len(offers.user_ids), len(offers.item)) == (5_000, 4_637, 189_359)
    assert int(offers.clicked.sum()) == 7_542
    assert len(np.unique(offers.item)) == 7_457
    assert (len(log), int(log.primary.sum())) == (189_359, 7_542)
    assert log.impression is not None
    assert len(np.unique(log.impression)) == 5_000
    first, last = (np.datetime64(int(edge), "s").astype(str)[:10] for edge in (offers.time.min(), offers.time.max()))
    assert (first, last) == ("2019-11-09", "2019-11-14")


def test_news_of_mind_have_text_for_few_candidates_as_its_limits_say() -> None:
    log, news = log_of("mind-small-sample"), read("mind-small-sample").texts["news"]
    assert (len(news), len(news.classes)) == (2_000, 15)
    has_text = np.array([bool(text) for text in log.catalogue.item_text])
    assert int(has_text[np.unique(log.item)].sum()) == 284
    assert int(has_text[log.item].sum()) == 5_310
    assert any(text.startswith('"') for text in news.text)  # a quotation mark that nothing closes swallows no rows


def test_an_impression_at_2_pm_is_not_one_at_2_am() -> None:
    offers = read("mind-small-sample").impressions
    assert offers is not None
    hours = np.bincount((offers.time // 3600 % 24).astype(int), minlength=24)
    assert (hours > 0).all()


def test_the_history_of_an_impression_of_mind_is_its_own() -> None:
    offers = read("mind-small-sample").impressions
    assert offers is not None
    at = offers.user_ids.index("U81994")
    (row,) = np.flatnonzero(offers.user == at)[:1]
    history = offers.history[offers.history_start[row] : offers.history_start[row + 1]]
    assert [offers.item_ids[item] for item in history[:3]] == ["N138", "N64727", "N138"]


# ------------------------------------------------------------------------------------------------- logged rounds


def test_open_bandit_has_two_policies_with_their_true_propensities() -> None:
    rounds = read("obd-women").rounds
    assert set(rounds) == {"random", "bts"}
    for policy, logged in rounds.items():
        assert (len(logged), logged.n_actions, logged.n_positions) == (10_000, 46, 3), policy
        assert round(float(logged.reward.mean()), 4) == 0.0046
        assert np.bincount(logged.position, minlength=3).min() > 3_000
        assert np.datetime64(int(logged.time.min()), "s") >= np.datetime64("2019-11-24")
    assert np.allclose(rounds["random"].pscore, 1 / 46)
    assert rounds["bts"].pscore.max() == pytest.approx(0.9628, abs=1e-3)
    assert rounds["bts"].pscore.min() < 1e-5


def test_both_policies_of_open_bandit_share_columns_of_context_and_items() -> None:
    """Item features are hashed with another salt in each folder: what they group is the same, their names are not."""
    random, bts = (read("obd-women").rounds[name] for name in ("random", "bts"))
    assert random.context.shape == bts.context.shape == (10_000, 3 + 5 + 8 + 7 + 46)
    assert np.array_equal(random.action_features, bts.action_features)
    share = random.context[:, :3].mean(axis=0), bts.context[:, :3].mean(axis=0)
    assert np.allclose(*share, atol=0.02)


def test_rounds_of_open_bandit_go_into_off_policy_evaluation_as_they_are(tmp_path: Path) -> None:
    from evaluators.off_policy import Rounds
    from evaluators.off_policy.reading import read_log

    logged = read("obd-women").rounds["bts"]
    assert len(Rounds(**logged.columns()).action) == 10_000
    np.savez(tmp_path / "bts.npz", **logged.columns())
    again, _ = read_log(tmp_path / "bts.npz")
    assert np.array_equal(again.reward, logged.reward)


# ------------------------------------------------------------------------------------------------- search


def test_esci_has_its_published_grades_and_every_judged_product() -> None:
    judged = read("esci-sample").judgements
    assert judged is not None
    assert (len(judged.query_text), len(judged.document_ids), len(judged)) == (150, 6_764, 6_678)
    counts = {judged.grade_names[grade]: int(n) for grade, n in enumerate(np.bincount(judged.grade))}
    assert counts == {"exact": 3_389, "substitute": 1_898, "complement": 305, "irrelevant": 1_086}
    assert judged.query_text[0] == "t towels kitchen"
    assert judged.document_ids[judged.document[0]] == "B07NCQWCQS"
    assert sum(1 for text in judged.documents["description"] if text) == 3_376
    assert not any(text == "None" for text in judged.documents["brand"])


def test_cranfield_counts_its_queries_by_place_and_leaves_out_what_prompted_them() -> None:
    judged = read("cranfield").judgements
    assert judged is not None
    assert (len(judged.query_text), len(judged.document_ids)) == (225, 1_400)
    assert np.bincount(judged.grade).tolist() == [0, 363, 734, 387, 128]
    assert len(np.unique(judged.query)) == 225
    assert judged.query_text[-1].startswith("what design factors can be used to control lift-drag ratios")
    # Query 1 of the judgements is record 001: document 184 is on the aeroelasticity of heated high speed aircraft.
    assert "aeroelastic" in judged.query_text[0]
    first = judged.document[judged.query == 0]
    assert "183" not in judged.document_ids[first[0]]
    assert judged.document_ids[first[0]] == "184"
    assert "aeroelastic" in judged.documents["text"][first[0]]
    empty = [judged.document_ids[at] for at, text in enumerate(judged.documents["text"]) if not text]
    assert empty == ["471", "995"]


# ------------------------------------------------------------------------------------------------- texts


def test_banking77_has_77_intents_and_queries_that_span_lines() -> None:
    texts = read("banking77").texts
    assert {split: len(found) for split, found in texts.items()} == {"train": 10_003, "test": 3_080}
    train, test = (np.bincount(texts[split].label, minlength=77) for split in ("train", "test"))
    assert (train.min(), train.max()) == (35, 187)
    assert test.tolist() == [40] * 77
    assert sum("\n" in text for text in texts["train"].text) == 10
    assert texts["train"].text[0] == "I am still waiting on my card?"
    assert texts["train"].classes[texts["train"].label[0]] == "card_arrival"


def test_thucnews_has_a_thousand_titles_of_each_class_in_each_part() -> None:
    texts = read("thucnews-titles").texts
    for split in ("dev", "test"):
        assert np.bincount(texts[split].label).tolist() == [1_000] * 10
    dev = texts["dev"]
    assert dev.text[0] == "体验2D巅峰 倚天屠龙记十大创新概览"
    assert dev.classes[dev.label[0]] == "game"


# ------------------------------------------------------------------------------------------------- people


def test_restaurants_have_their_published_ratings_and_question_marks_are_empty() -> None:
    log = log_of("restaurant-consumer")
    assert (len(log), log.catalogue.n_users, log.catalogue.n_items) == (1_161, 138, 130)
    assert np.bincount(log.behaviours["rating"].astype(int)).tolist() == [254, 421, 486]
    status = log.catalogue.user_attributes["marital_status"]
    assert int((status == "").sum()) == 4
    assert "?" not in np.concatenate([np.unique(values) for values in log.catalogue.user_attributes.values()])
    assert not any("?" in text for text in log.catalogue.item_text)


def test_hillstrom_is_randomised_and_its_control_comes_first() -> None:
    units = read("hillstrom").treatments
    assert units is not None
    assert np.bincount(units.arm).tolist() == [21_306, 21_307, 21_387]
    visit = [round(float(units.outcomes["visit"][units.arm == arm].mean()), 3) for arm in range(3)]
    spend = [round(float(units.outcomes["spend"][units.arm == arm].mean()), 3) for arm in range(3)]
    assert (visit, spend) == ([0.106, 0.183, 0.151], [0.653, 1.423, 1.077])
    assert not set(units.covariates) & {"visit", "conversion", "spend", "segment"}


def test_pictures_of_garments_are_pictures() -> None:
    pictures = read("clothing-images").media
    assert pictures is not None
    assert np.bincount(pictures.label).tolist() == [12] * 10
    assert "t-shirt" in pictures.classes
    assert pictures.read(pictures.names[0]).startswith(b"\xff\xd8\xff")  # JPEG
