"""A page and an address that classify images, for the people and programs of this computer."""

from thumbnet.serving.endpoints import About as About
from thumbnet.serving.endpoints import application as application
from thumbnet.serving.server import serve as serve
