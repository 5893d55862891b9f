"""Plane's URLs: the health check at /, the export endpoint that the loss was reported for, and who answers."""

from django.urls import path

from plane.app import views

urlpatterns = [
    path("", views.health),
    path("api/whoami/", views.whoami),
    path("api/exports/", views.create_export),
    path("api/exports/<str:token>/", views.read_export),
]
