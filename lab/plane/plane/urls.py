"""Plane's URLs: the health check at /, the export endpoint that the loss was reported for, two reads, who answers."""

from django.urls import path

from plane.app import views

urlpatterns = [
    path("", views.health),
    path("api/whoami/", views.whoami),
    path("api/users/me/", views.read_me),
    path("api/v1/projects/", views.list_projects),
    path("api/exports/", views.create_export),
    path("api/exports/<str:token>/", views.read_export),
]
