"""The Labeling page: one image after another."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client

from controlplane.models import User
from labeling import views
from labeling.models import Annotation, Lease, Task
from tests.labeling import scene

pytestmark = pytest.mark.django_db
CLASSES = ["shirt", "shoe", "bag"]


@pytest.fixture
def annotator() -> User:
    return scene.an_annotator()


@pytest.fixture
def page(annotator: User) -> Client:
    client = Client()
    client.force_login(annotator)
    return client


def text(response) -> str:
    """What a person reads: without tags, spaces as one."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", response.content.decode()))


def test_an_empty_queue_names_the_band(page: Client) -> None:
    assert "0 samples between .3 and .6" in text(page.get("/labeling"))


def test_a_task_shows_its_image_suggestion_reason_and_a_key_for_each_class(page: Client) -> None:
    [task] = scene.tasks(scene.a_version(bundle={"classes": CLASSES}), 1)
    shown = page.get("/labeling").content.decode()
    assert f"/api/v1/labeling/tasks/{task.pk}/image" in shown
    assert "confidence .47 is between .30 and .60" in shown
    assert re.findall(r'data-key="(.)"', shown) == ["1", "2", "3", "s"]


def test_a_reload_shows_the_same_image(page: Client) -> None:
    scene.tasks(scene.a_version(), 2)
    page.get("/labeling")
    page.get("/labeling")
    assert Lease.objects.count() == 1


def test_an_answer_is_stored_and_the_next_image_follows(page: Client, annotator: User) -> None:
    scene.tasks(scene.a_version(bundle={"classes": CLASSES}), 2)
    page.get("/labeling")
    lease = Lease.objects.get()
    page.post("/labeling/answer", {"token": lease.token, "label": "bag"}, follow=True)
    assert Annotation.objects.get().label == "bag"
    assert Lease.objects.exclude(pk=lease.pk).get().annotator == annotator


def test_a_skip_is_stored_as_one(page: Client) -> None:
    scene.tasks(scene.a_version(), 1)
    page.get("/labeling")
    page.post("/labeling/answer", {"token": Lease.objects.get().token, "skip": "1"})
    assert Task.objects.get().state == "skipped"


def test_a_label_that_the_version_does_not_have_is_refused_in_words(page: Client) -> None:
    scene.tasks(scene.a_version(bundle={"classes": CLASSES}), 1)
    page.get("/labeling")
    answer = {"token": Lease.objects.get().token, "label": "tractor"}
    assert "is none of" in text(page.post("/labeling/answer", answer, follow=True))
    assert not Annotation.objects.exists()


def test_nobody_answers_with_the_lease_of_somebody_else(page: Client) -> None:
    [task] = scene.tasks(scene.a_version(), 1)
    lease = Lease.objects.create(
        task=task, annotator=scene.an_annotator("other"), expires_at=scene.NOW + timedelta(days=9999)
    )
    assert page.post("/labeling/answer", {"token": lease.token, "label": "shoe"}).status_code == 404


def test_a_token_that_is_none_is_a_404_not_an_error(page: Client) -> None:
    assert page.post("/labeling/answer", {"token": "x", "label": "shoe"}).status_code == 404


def test_a_viewer_gets_no_task(page: Client, annotator: User) -> None:
    User.objects.filter(pk=annotator.pk).update(role="viewer")
    scene.tasks(scene.a_version(), 1)
    assert "Your role may not label" in text(page.get("/labeling"))
    assert not Lease.objects.exists()


def test_one_model_may_be_worked_on_alone(page: Client) -> None:
    scene.tasks(scene.a_version("products"), 1, priority=9)
    scene.tasks(scene.a_version("shelf"), 1)
    page.get("/labeling?model=shelf")
    assert Lease.objects.get().task.model.name == "shelf"


def test_a_key_always_means_the_same_class_and_the_guess_is_marked() -> None:
    found = views.choices(CLASSES, {"label": "shoe", "confidence": 0.5, "probabilities": [0.2, 0.5, 0.3]})
    assert [(choice.name, choice.key, choice.suggested) for choice in found] == [
        ("shirt", "1", False),
        ("shoe", "2", True),
        ("bag", "3", False),
    ]
    assert [choice.score for choice in found] == [0.2, 0.5, 0.3]


def test_classes_beyond_the_tenth_have_no_key() -> None:
    found = views.choices([f"class {i}" for i in range(12)], {})
    assert [choice.key for choice in found[9:]] == ["0", "", ""]
